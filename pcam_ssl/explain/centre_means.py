"""Where a whole fold looks: mean centre share, right calls against wrong ones, with intervals from resampled slides. No torch."""

from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, student_interval
from pcam_ssl.evaluation.scores import interval_text
from pcam_ssl.evaluation.slide_means import mean_intervals, resampled_sums

RESAMPLES = 2000


def centre_means(
    shares: np.ndarray, right: np.ndarray, slides=None, unit: str = "slide", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Means of the centre shares `[N]` over all patches, those called right (`right` bool `[N]`), those called wrong, and their difference.

    Patches whose share is NaN are left out and counted as `flat`. `slides` `[N]` are what is resampled, called `unit`; None resamples patches.
    """
    known = np.isfinite(shares)
    shares, right = shares[known], np.asarray(right)[known]
    codes = (
        np.arange(len(shares))
        if slides is None
        else pd.factorize(np.asarray(slides, dtype=object)[known], use_na_sentinel=False)[0]
    )
    parts = {"all": np.ones(len(shares), bool), "right": right, "wrong": ~right}
    means = {name: _mean(shares[rows], codes[rows].astype(str), resamples, seed) for name, rows in parts.items()}
    difference = _difference(shares, right, codes, resamples, seed)
    return {
        **means,
        "difference": difference,
        "flat": int((~known).sum()),
        "interval": interval_text(slides, len(shares), resamples, unit),
    }


def _mean(shares: np.ndarray, slides: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    if not len(shares):
        return {"n": 0, "value": None, "low": None, "high": None, "reason": "there are none"}
    return {"n": len(shares), **mean_intervals(shares[:, None], slides, resamples, seed)[0]}


def _difference(shares: np.ndarray, right: np.ndarray, codes: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """Mean of right less mean of wrong, both drawn in the same resample: a slide holds right and wrong calls, and they are alike."""
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
