"""Training views of a patch. The only file that imports albumentations.

A view is a pure function of (patch, key): no random state outlives a call, so neither workers, nor processes,
nor a resume can change what a network sees.
"""

import json
import random
import time
import warnings
from hashlib import blake2b
from typing import Any

import albumentations as A
import cv2
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema

from pcam_ssl.data.images import OPTICAL_DENSITY, UNMIX
from pcam_ssl.errors import UserError, first_line

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


STAINS = np.linalg.inv(UNMIX)
"""Optical density (red, green, blue) of one unit of hematoxylin, eosin, and a residual (DAB): Ruifrok & Johnston (2001)."""

NATURAL_DENSITY = (np.log(10) * OPTICAL_DENSITY).astype(np.float32)
"""Optical density of each 8-bit intensity to base e: a table look-up is three times as fast as a logarithm."""

TISSUE_DENSITY = 0.3
"""Optical density (base 10, mean of the colours) of tissue in the mean over slides of kaggle-mini."""

# Half-widths of uniform draws. Views so drawn move hematoxylin, eosin and residual with standard deviations of 0.061, 0.041 and
# 0.092; the slides of kaggle-mini differ by 0.060, 0.040 and 0.088. `scripts/view_spread.py` measures both.
SCALE = (0.3, 0.3, 0.3)
SHIFT = (0.03, 0.03, 0.14)
STRONG = 1.8
"""How many times as far as `standard` the policy `strong` moves the stains."""


TRIAL_S = 3.0
RESAVE = "write the file with albumentations.save"


class StainJitter(A.ImageOnlyTransform):
    """Stain jitter in haematoxylin-eosin-DAB space (Tellez et al. 2019, arXiv:1902.06543) of a uint8 `[H, W, 3]` patch.

    The amount of each stain is multiplied by 1 + alpha and shifted by beta, uniform draws within +-`scale` and +-`shift`. Unlike
    the paper's, a shift grows with the pixel's own density and has its full size at `TISSUE_DENSITY`, so white stays white, and
    scale and shift together are one matrix on the optical density. albumentations' own HEStain cannot do this: it drops what its
    two stains do not explain, so it changes the patch even where it jitters nothing.
    """

    class InitSchema(BaseTransformInitSchema):
        scale: tuple[float, float, float]
        shift: tuple[float, float, float]

    def __init__(self, scale: tuple[float, float, float] = SCALE, shift: tuple[float, float, float] = SHIFT, p: float = 1.0):
        super().__init__(p=p)
        self.scale, self.shift = scale, shift

    @classmethod
    def get_class_fullname(cls) -> str:
        """Its name in saved files, wherever the class lies."""
        return "pcam_ssl.StainJitter"

    def get_params(self) -> dict[str, Any]:
        alpha, beta = self.random_generator.uniform(-1, 1, (2, 3)) * (self.scale, self.shift)
        shifted = np.outer(np.full(3, 1 / (3 * TISSUE_DENSITY)), beta @ STAINS)
        return {"matrix": UNMIX * (1 + alpha) @ STAINS + shifted}

    def apply(self, img: np.ndarray, matrix: np.ndarray, **params: Any) -> np.ndarray:
        # OpenCV multiplies columns, and a row of `matrix` is what one colour's density becomes.
        density = cv2.transform(cv2.LUT(img, NATURAL_DENSITY), -matrix.T)
        return cv2.convertScaleAbs(cv2.exp(cv2.min(density, 0)), alpha=255)


class Views:
    """Draws views by a policy: none, d4, standard (D4 + stain), strong (stain further, also shift, blur, erasing), file (D4 + `transform`).

    `strength` scales every magnitude but D4's and those of `transform`, what `albumentations.save` writes. The centre 32 px
    decide the label, so shifts stay within 4 px of a 96 px patch. Raises UserError for a `transform` that cannot be built.
    """

    def __init__(self, policy: str, strength: float = 1.0, transform: dict[str, Any] | None = None):
        self.policy = policy
        self.turns = policy != "none"
        if policy == "file":
            self.compose = _loaded(transform)
            return
        steps = {"none": [], "d4": [], "standard": [_stain(strength)], "strong": [_stain(STRONG * strength), *_tissue(strength)]}[
            policy
        ]
        self.compose = A.Compose(steps) if steps and strength else None

    def __call__(self, patch: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
        """The view of a uint8 `[H, W, 3]` patch that belongs to `key`. Raises UserError where a user's own policy returns anything else."""
        if not self.turns:
            return patch
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        patch = dihedral(patch, int(generator.integers(8)))
        if self.compose is None:
            return patch
        # One generator for every step: seeding each transform by `set_random_seed` costs more than the transforms.
        self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        view = self.compose(image=patch)["image"]
        # Batches are filled in place, which would turn a float view into uint8 without a word.
        if getattr(view, "dtype", None) != np.uint8 or view.shape != patch.shape:
            found = f"{getattr(view, 'dtype', type(view).__name__)} {tuple(getattr(view, 'shape', ()))}"
            raise UserError(
                f"views.file: makes {found} of a uint8 patch {patch.shape}; a view keeps size and dtype, so drop that step"
            )
        return view


def check_transform(transform: dict[str, Any], patches: np.ndarray, draws: int = 128) -> None:
    """Try a user's own policy on uint8 `[N, H, W, 3]`. Raises UserError where it cannot be built, fails, changes size or dtype, or
    shows something else when the same key is drawn again. What it does once in thousands of draws is told when it happens."""
    first, second = (Views("file", transform=transform) for _ in range(2))
    shown: list[np.ndarray] = []
    begun = time.monotonic()
    try:
        # Some steps take 0.1 s a patch.
        while len(shown) < draws and (len(shown) < len(patches) or time.monotonic() - begun < TRIAL_S):
            shown.append(first(patches[len(shown) % len(patches)], (0, len(shown))))
        again = [second(patches[draw % len(patches)], (0, draw)) for draw in reversed(range(len(shown)))][::-1]
    except UserError:
        raise
    except Exception as error:
        # Whatever a library of some hundred transforms raises on a patch is a reason not to train with it.
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"views.file: fails on a patch of {patches.shape[1]} px ({reason}); drop that step") from None
    if not all(np.array_equal(one, other) for one, other in zip(shown, again, strict=True)):
        raise UserError("views.file: the same key shows another view when drawn again; drop the step that is not seeded")


def _loaded(content: dict[str, Any]) -> A.Compose:
    """The pipeline that `albumentations.save` wrote. Names are looked up in albumentations' registry: no code of the file runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            transform = A.from_dict(content)
        except KeyError as error:
            lacks = f"has no transform {error}" if not error.args[0].startswith("__") else f"finds a step without {error.args[0]}"
            raise UserError(f"views.file: albumentations {A.__version__} {lacks}; {RESAVE}") from None
        except Exception as error:
            reason = " ".join(str(error).partition("[type=")[0].split())
            raise UserError(f"views.file: albumentations {A.__version__} refuses it ({reason[:300]}); {RESAVE}") from None
    _check_arguments(transform, content["transform"])
    return transform if isinstance(transform, A.Compose) else A.Compose([transform])


def _check_arguments(transform: Any, content: dict[str, Any]) -> None:
    """Refuse an argument that albumentations drops with no more than a warning: a typing error, or one of another version.

    It also writes some that it drops again on reading; those are borne where the step came back with the same value.
    """
    for name in getattr(transform, "invalid_args", []):
        kept = transform.get_transform_init_args().get(name)
        if json.loads(json.dumps(kept, default=str)) != content[name]:
            step = type(transform).__name__
            raise UserError(
                f"views.file: {step} of albumentations {A.__version__} does not take {name}; leave out that argument, or the step"
            )
    for inner, part in zip(getattr(transform, "transforms", []), content.get("transforms", []), strict=False):
        _check_arguments(inner, part)


def _stain(strength: float) -> A.ImageOnlyTransform:
    return StainJitter(tuple(min(scale * strength, 0.9) for scale in SCALE), tuple(shift * strength for shift in SHIFT))


def _tissue(strength: float) -> list:
    shift = 4 / 96 * strength
    return [
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
