"""Training views of a patch. The only file that imports albumentations.

A view is a pure function of (patch, key): no random state outlives a call, so neither workers, nor processes,
nor a resume can change what a network sees.
"""

import random
from hashlib import blake2b

import albumentations as A
import cv2
import numpy as np

# OpenCV's own threads fight with torch's for the same cores.
cv2.setNumThreads(0)


# OpenCV turns clockwise by name; the group's elements are counter-clockwise quarter turns. Ten times as fast as NumPy's views and copy.
TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def dihedral(patch: np.ndarray, element: int) -> np.ndarray:
    """Element 0..7 of the dihedral group D4 on uint8 `[H, W, C]`: `element % 4` quarter turns counter-clockwise, then a flip left to right for 4..7.

    Element 0 is the identity.
    """
    turned = cv2.rotate(patch, TURNS[element % 4]) if element % 4 else patch
    return cv2.flip(turned, 1) if element >= 4 else turned


class Views:
    """Draws views by a policy: none, d4, standard (D4 + colour), strong (also stain, shift, blur, erasing).

    `strength` scales every magnitude but D4's. The centre 32 px decide the label, so shifts stay within 4 px of a 96 px patch.
    """

    def __init__(self, policy: str, strength: float = 1.0):
        self.policy = policy
        self.turns = policy != "none"
        steps = {"none": [], "d4": [], "standard": _colour(strength), "strong": _colour(strength) + _tissue(strength)}[policy]
        self.compose = A.Compose(steps) if steps and strength else None

    def __call__(self, patch: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """The view of a uint8 `[H, W, 3]` patch that belongs to `key`."""
        if not self.turns:
            return patch
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        patch = dihedral(patch, int(generator.integers(8)))
        if self.compose is None:
            return patch
        # One generator for every step: seeding each transform by `set_random_seed` costs more than the transforms.
        self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        return self.compose(image=patch)["image"]


def _colour(strength: float) -> list:
    return [
        A.HueSaturationValue(10 * strength, 25 * strength, 12 * strength, p=0.8),
        A.RandomBrightnessContrast(min(0.2 * strength, 0.9), min(0.2 * strength, 0.9), p=0.8),
    ]


def _tissue(strength: float) -> list:
    shift = 4 / 96 * strength
    return [
        A.RGBShift(12 * strength, 12 * strength, 12 * strength, p=0.5),
        A.Affine(
            translate_percent=(-shift, shift),
            rotate=(-15 * strength, 15 * strength),
            scale=(1 / (1 + 0.1 * strength), 1 + 0.1 * strength),
            border_mode=cv2.BORDER_REFLECT_101,
            p=0.5,
        ),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 0.1 + 0.9 * strength), p=0.2),
        A.CoarseDropout(
            num_holes_range=(1, 3), hole_height_range=(0.05, 0.15), hole_width_range=(0.05, 0.15), fill="random_uniform", p=0.3
        ),
    ]


def id_key(patch_id: str) -> int:
    """A stable 64-bit number of an id, so that a patch's random views do not depend on its neighbours or its row."""
    return int.from_bytes(blake2b(patch_id.encode(), digest_size=8).digest(), "little")
