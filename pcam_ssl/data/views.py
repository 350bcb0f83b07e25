"""Training views of a patch. The only file that imports albumentations.

A view is a pure function of (patch, key). No random state outlives a call, so workers, processes and resumes do not change
the views.
"""

import json
import random
import time
import warnings
from hashlib import blake2b
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
from albumentations.core.transforms_interface import BaseTransformInitSchema

from pcam_ssl.data.images import OPTICAL_DENSITY, UNMIX
from pcam_ssl.errors import UserError, first_line

# The elements of the group are counter-clockwise quarter turns. OpenCV's rotation is ten times as fast as a copy of NumPy's view.
TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


def dihedral(patch: np.ndarray, element: int) -> np.ndarray:
    """A patch uint8 `[H, W, C]` under element 0..7 of the dihedral group D4: `element % 4` quarter turns counter-clockwise, then for
    4..7 a flip from left to right. Element 0 is the identity."""
    turned = cv2.rotate(patch, TURNS[element % 4]) if element % 4 else patch
    return cv2.flip(turned, 1) if element >= 4 else turned


STAINS = np.linalg.inv(UNMIX)
"""Optical density (red, green, blue) of one unit of hematoxylin, eosin, and a residual (DAB): Ruifrok & Johnston (2001)."""

NATURAL_DENSITY = (np.log(10) * OPTICAL_DENSITY).astype(np.float32)
"""Optical density to base e of each 8-bit intensity. A table lookup is three times as fast as a logarithm."""

TISSUE_DENSITY = 0.3
"""Optical density (base 10, mean of the colours) of tissue in the mean over slides of kaggle-mini."""

# Half-widths of uniform draws. Hematoxylin, eosin and residual of the views then vary with standard deviations of 0.061, 0.041 and
# 0.092. Between slides of kaggle-mini they vary by 0.060, 0.040 and 0.088. `scripts/view_spread.py` measures both.
SCALE = (0.3, 0.3, 0.3)
SHIFT = (0.03, 0.03, 0.14)
STRONG = 1.8
"""Factor of the stain jitter of the policy `strong` over `standard`."""


TRIAL_S = 3.0
RESAVE = "write the file with albumentations.save"


class StainJitter(A.ImageOnlyTransform):
    """Stain jitter in haematoxylin-eosin-DAB space (Tellez et al. 2019, arXiv:1902.06543) of a uint8 `[H, W, 3]` patch.

    The amount of each stain is multiplied by 1 + alpha and shifted by beta, uniform draws within +-`scale` and +-`shift`. Deviation from
    the paper: the shift grows with the density of the pixel and has its full size at `TISSUE_DENSITY`. So white stays white, and
    scale and shift are one matrix on the optical density. albumentations' HEStain is not used because it drops the residual of
    its two stains, which changes the patch even without jitter.
    """

    class InitSchema(BaseTransformInitSchema):
        scale: tuple[float, float, float]
        shift: tuple[float, float, float]

    def __init__(self, scale: tuple[float, float, float] = SCALE, shift: tuple[float, float, float] = SHIFT, p: float = 1.0):
        super().__init__(p=p)
        self.scale, self.shift = scale, shift

    @classmethod
    def get_class_fullname(cls) -> str:
        """The name of the class in saved files, independent of its module."""
        return "pcam_ssl.StainJitter"

    def get_params(self) -> dict[str, Any]:
        alpha, beta = self.random_generator.uniform(-1, 1, (2, 3)) * (self.scale, self.shift)
        shifted = np.outer(np.full(3, 1 / (3 * TISSUE_DENSITY)), beta @ STAINS)
        return {"matrix": UNMIX * (1 + alpha) @ STAINS + shifted}

    def apply(self, img: np.ndarray, matrix: np.ndarray, **params: Any) -> np.ndarray:
        # OpenCV multiplies column vectors; row i of `matrix` is the new density of colour i alone, so the matrix is transposed.
        density = cv2.transform(cv2.LUT(img, NATURAL_DENSITY), -matrix.T)
        return cv2.convertScaleAbs(cv2.exp(cv2.min(density, 0)), alpha=255)


class ViewParameters(NamedTuple):
    """A view as numbers. A step that is None leaves the patch as it is; the steps come in this order."""

    element: int = 0
    """The element of D4, as `dihedral` takes it."""
    stain: np.ndarray | None = None
    """Matrix `[3, 3]` that is multiplied from the right to the optical density of a pixel `[3]`."""
    warp: np.ndarray | None = None
    """Matrix `[2, 3]` from a place (x, y, 1) in the view to its place in the patch, in px."""
    blur: np.ndarray | None = None
    """One-dimensional kernel of odd length."""
    holes: np.ndarray | None = None
    """Erased boxes `[n, 7]`: x and y of the first px, x and y behind the last, colour."""


class Views:
    """Draws views by a policy: none, d4, standard (D4 + stain jitter), strong (D4 + more stain jitter, shift, blur, erasing), file (D4 + `transform`).

    `strength` scales all magnitudes except D4 and those of `transform`, the output of `albumentations.save`. The centre 32 px
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

    def __call__(self, patch: np.ndarray, key: tuple[int, ...], row: int | None = None) -> np.ndarray:
        """The view of a patch uint8 `[H, W, 3]` for `key`, of the same shape, whatever its `row`. Raises UserError where a user's own policy changes shape or dtype."""
        if not self.turns:
            return patch
        patch = dihedral(patch, self._seeded(key))
        if self.compose is None:
            return patch
        view = self.compose(image=patch)["image"]
        # Batches are filled in place, which would silently cast a float view to uint8.
        if getattr(view, "dtype", None) != np.uint8 or view.shape != patch.shape:
            found = f"{getattr(view, 'dtype', type(view).__name__)} {tuple(getattr(view, 'shape', ()))}"
            raise UserError(
                f"views.file: turns a uint8 patch {patch.shape} into {found}; a view keeps size and dtype, so drop that step"
            )
        return view

    def parameters(self, key: tuple[int, ...], size_px: int) -> ViewParameters:
        """What `__call__` draws for `key` and a patch of `size_px`, by the same generators in the same order. Not for the policy `file`."""
        if not self.turns:
            return ViewParameters()
        element = self._seeded(key)
        if self.compose is None:
            return ViewParameters(element)
        # albumentations first draws whether the whole policy is applied, which it always is.
        self.compose.py_random.random()
        drawn = {type(step): _draw(step, size_px) for step in self.compose.transforms if step.should_apply()}
        stain, warp, blur, erase = (drawn.get(step, {}) for step in (StainJitter, A.Affine, A.GaussianBlur, A.CoarseDropout))
        return ViewParameters(
            element,
            stain.get("matrix"),
            np.linalg.inv(warp["matrix"])[:2] if warp else None,
            blur.get("kernel"),
            _coloured(**erase) if erase else None,
        )

    def _seeded(self, key: tuple[int, ...]) -> int:
        """The element of D4 for `key`; the steps after it then draw from the generators of `key`."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        element = int(generator.integers(8))
        if self.compose is not None:
            # One generator for all transforms: seeding each by `set_random_seed` costs more time than the transforms.
            self.compose.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        return element


def check_transform(transform: dict[str, Any], patches: np.ndarray, draws: int = 128) -> None:
    """Try a user's own policy on patches uint8 `[N, H, W, 3]`. Raises UserError where it cannot be built, fails, changes size or dtype, or
    gives another view when the same key is drawn again. Rarer failures are reported during training."""
    first, second = (Views("file", transform=transform) for _ in range(2))
    shown: list[np.ndarray] = []
    begun = time.monotonic()
    try:
        # Some transforms take 0.1 s per patch.
        while len(shown) < draws and (len(shown) < len(patches) or time.monotonic() - begun < TRIAL_S):
            shown.append(first(patches[len(shown) % len(patches)], (0, len(shown))))
        again = [second(patches[draw % len(patches)], (0, draw)) for draw in reversed(range(len(shown)))][::-1]
    except UserError:
        raise
    except Exception as error:
        # Any error of any of albumentations' transforms is a reason not to train with it.
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"views.file: fails on a patch of {patches.shape[1]} px ({reason}); drop that step") from None
    if not all(np.array_equal(one, other) for one, other in zip(shown, again, strict=True)):
        raise UserError("views.file: the same key gives another view when drawn again; drop the step that is not seeded")


def _loaded(content: dict[str, Any]) -> A.Compose:
    """The pipeline that `albumentations.save` wrote. Names are looked up in albumentations' registry; no code from the file runs."""
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
    """Refuse arguments that albumentations drops with only a warning: misspelt ones and those of another version.

    albumentations also writes arguments that it drops when reading. These are accepted where the step has the same value anyway.
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


def _draw(step: A.BasicTransform, size_px: int) -> dict[str, Any]:
    """The parameters that a transform draws for a patch, in the order of its `__call__`."""
    own = step.get_params()
    return own | step.get_params_dependent_on_data({**own, "shape": (size_px, size_px, 3)}, {})


def _coloured(holes: np.ndarray, seed: int) -> np.ndarray:
    """Boxes `[n, 7]` of CoarseDropout with the colours that its `fill="random_uniform"` draws from `seed`."""
    generator = np.random.default_rng(seed)
    return np.stack([np.r_[hole, generator.integers(0, 256, (1, 3), np.uint8)[0]] for hole in holes])


def id_key(patch_id: str) -> int:
    """A stable 64-bit number of an id. It seeds the random views of a patch, independent of its row and batch."""
    return int.from_bytes(blake2b(patch_id.encode(), digest_size=8).digest(), "little")
