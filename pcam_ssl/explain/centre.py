"""The centre of a patch, which alone makes the label in PatchCamelyon: how much of an attribution lies there, and patches without it. No torch."""

import cv2
import numpy as np

BLUR = 1 / 4
"""Standard deviation of the blur in widths of the centre: 8 px in a patch of 96 px, about the width of a nucleus at its magnification."""


def centre_bounds(size_px: int) -> tuple[int, int]:
    """First and one past the last px of the centre along an edge: the middle third, so 32 to 64 of a patch of 96 px."""
    width = max(1, round(size_px / 3))
    low = (size_px - width) // 2
    return low, low + width


def even_share(size_px: int) -> float:
    """The centre's part of the patch's area: the share that an attribution spread evenly has there."""
    low, high = centre_bounds(size_px)
    return ((high - low) / size_px) ** 2


def centre_share(maps: np.ndarray, size_px: int) -> np.ndarray:
    """Share of each attribution map `[N, h, w]` that lies in the centre, float64 `[N]`; NaN where a map is all zero.

    Maps are not negative, of any resolution; each cell counts with the part of its area that the centre covers.
    """
    maps = np.asarray(maps, dtype=np.float64)
    rows, columns = (_covered(cells, size_px) for cells in maps.shape[1:])
    inside = np.einsum("h,nhw,w->n", rows, maps, columns)
    whole = maps.sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)


def _covered(cells: int, size_px: int) -> np.ndarray:
    """The part of each of `cells` equal cells along an edge that the centre covers, float64 `[cells]`."""
    low, high = centre_bounds(size_px)
    ends = np.arange(cells + 1) * size_px / cells
    return np.clip(np.minimum(ends[1:], high) - np.maximum(ends[:-1], low), 0, None) * cells / size_px


def without_centre(patches: np.ndarray) -> np.ndarray:
    """Patches uint8 `[N, H, H, 3]` with the centre blurred away."""
    return _mixed(patches, keep_centre=False)


def without_surround(patches: np.ndarray) -> np.ndarray:
    """Patches uint8 `[N, H, H, 3]` with all but the centre blurred away."""
    return _mixed(patches, keep_centre=True)


def _mixed(patches: np.ndarray, keep_centre: bool) -> np.ndarray:
    low, high = centre_bounds(patches.shape[1])
    blurred = np.stack([cv2.GaussianBlur(patch, (0, 0), BLUR * (high - low), borderType=cv2.BORDER_REFLECT) for patch in patches])
    kept, lost = (blurred, patches) if keep_centre else (np.array(patches), blurred)
    kept[:, low:high, low:high] = lost[:, low:high, low:high]
    return kept
