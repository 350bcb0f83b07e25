"""The centre of a patch, which alone decides the label in PatchCamelyon.

The share of an attribution that lies in it, patches with centre or surround blurred, and mean shares over a fold with intervals from
resampled slides.
"""

from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, student_interval
from pcam_ssl.evaluation.resampled_sums import mean_intervals, resampled_sums
from pcam_ssl.evaluation.scores import interval_text

BLUR = 1 / 4
"""Standard deviation of the blur as a share of the centre's width: 8 px in a patch of 96 px, about the width of a nucleus there."""


def centre_bounds(size_px: int) -> tuple[int, int]:
    """First px of the centre along an edge, and one past its last: the middle third, so 32 and 64 in a patch of 96 px."""
    width = max(1, round(size_px / 3))
    low = (size_px - width) // 2
    return low, low + width


def even_share(size_px: int) -> float:
    """Share of the patch's area that the centre covers, which is the centre share of an even attribution."""
    low, high = centre_bounds(size_px)
    return ((high - low) / size_px) ** 2


def centre_share(maps: np.ndarray, size_px: int) -> np.ndarray:
    """Share of each attribution map `[N, h, w]` that lies in the centre, float64 `[N]`; NaN where a map is all zero.

    Maps are not negative and of any resolution; each cell counts with the share of its area that the centre covers.
    """
    maps = np.asarray(maps, dtype=np.float64)
    rows, columns = (_covered(cells, size_px) for cells in maps.shape[1:])
    inside = np.einsum("h,nhw,w->n", rows, maps, columns)
    whole = maps.sum(axis=(1, 2))
    return np.divide(inside, whole, out=np.full(len(maps), np.nan), where=whole > 0)


def _covered(cells: int, size_px: int) -> np.ndarray:
    """Share of each of `cells` equal cells along an edge that the centre covers, float64 `[cells]`."""
    low, high = centre_bounds(size_px)
    ends = np.arange(cells + 1) * size_px / cells
    return np.clip(np.minimum(ends[1:], high) - np.maximum(ends[:-1], low), 0, None) * cells / size_px


def without_centre(patches: np.ndarray) -> np.ndarray:
    """Patches uint8 `[N, H, H, 3]` with the centre blurred."""
    return _mixed(patches, keep_centre=False)


def without_surround(patches: np.ndarray) -> np.ndarray:
    """Patches uint8 `[N, H, H, 3]` with all but the centre blurred."""
    return _mixed(patches, keep_centre=True)


def _mixed(patches: np.ndarray, keep_centre: bool) -> np.ndarray:
    import cv2  # here, since reports without explanations do without it

    low, high = centre_bounds(patches.shape[1])
    blurred = np.stack([cv2.GaussianBlur(patch, (0, 0), BLUR * (high - low), borderType=cv2.BORDER_REFLECT) for patch in patches])
    result, source = (blurred, patches) if keep_centre else (np.array(patches), blurred)
    result[:, low:high, low:high] = source[:, low:high, low:high]
    return result


RESAMPLES = 2000


def centre_means(
    shares: np.ndarray, right: np.ndarray, slides=None, unit: str = "slide", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Mean centre share over all patches, over right calls (`right` bool `[N]`) and over wrong ones, and the difference of the two.

    `shares` `[N]`: patches whose share is NaN are excluded and counted as `flat`. Intervals resample `slides` `[N]` (their name is `unit`),
    or patches where that is None.
    """
    finite = np.isfinite(shares)
    shares, right = shares[finite], np.asarray(right)[finite]
    codes = (
        np.arange(len(shares))
        if slides is None
        else pd.factorize(np.asarray(slides, dtype=object)[finite], use_na_sentinel=False)[0]
    )
    parts = {"all": np.ones(len(shares), bool), "right": right, "wrong": ~right}
    means = {name: _mean(shares[rows], codes[rows].astype(str), resamples, seed) for name, rows in parts.items()}
    difference = _difference(shares, right, codes, resamples, seed)
    return {
        **means,
        "difference": difference,
        "flat": int((~finite).sum()),
        "interval": interval_text(slides, len(shares), resamples, unit),
    }


def _mean(shares: np.ndarray, slides: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    if not len(shares):
        return {"n": 0, "value": None, "low": None, "high": None, "reason": "there are none"}
    return {"n": len(shares), **mean_intervals(shares[:, None], slides, resamples, seed)[0]}


def _difference(shares: np.ndarray, right: np.ndarray, codes: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """Mean over right calls minus mean over wrong calls. Both are taken from the same resample, since calls of one slide are correlated."""
    if right.all() or not right.any():
        return {
            "value": None,
            "low": None,
            "high": None,
            "reason": "all calls are wrong" if len(right) and not right.any() else "all calls are right",
        }
    n = codes.max() + 1
    sums, counts = (
        np.stack([np.bincount(codes[rows], weights and shares[rows], n) for rows in (right, ~right)], axis=1)
        for weights in (True, None)
    )  # [S, 2]
    value = float(np.subtract(*(sums.sum(axis=0) / counts.sum(axis=0))))
    counted = count_groups(codes, right)
    if not counted.enough:
        return {"value": value, "low": None, "high": None, "reason": "right or wrong calls are on one slide only"}
    times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)  # [R, S]
    with np.errstate(invalid="ignore"):
        drawn = resampled_sums(times, sums) / (times @ counts)
    # A resample without a wrong call has no difference.
    both = drawn[np.isfinite(drawn).all(axis=1)]
    low, high = student_interval(value, both[:, 0] - both[:, 1], counted, PLAIN)
    return {"value": value, "low": float(low), "high": float(high), "resamples": len(both)}
