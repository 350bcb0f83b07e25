"""Intervals of plain means over patches, from resampling whole slides (Field and Welsh 2007, cluster bootstrap). No torch.

A mean needs only each slide's sum and count, so this is shorter than `bootstrap`, which resamples scores of sorted probs.
"""

import numpy as np
import pandas as pd

CHUNK = 2**22


def mean_intervals(values: np.ndarray, slides=None, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> list[dict]:
    """For each column of values [N, M] its mean with a percentile interval: {"value", "low", "high", "resamples"}.

    `slides` [N] are names (patches without one count as one slide); None makes every patch a slide of its own, which is too
    narrow where patches share slides. With one slide `low` and `high` are None and `reason` says so. All columns are
    resampled together.
    """
    n, m = values.shape
    codes = np.arange(n) if slides is None else pd.factorize(pd.array(slides, dtype="str"), sort=True, use_na_sentinel=False)[0]
    n_slides = int(codes.max(initial=-1)) + 1
    means = [float(column.mean()) for column in values.T]
    if n_slides < 2:
        return [{"value": mean, "low": None, "high": None, "resamples": 0, "reason": "one slide only"} for mean in means]
    sums = np.stack([np.bincount(codes, column, n_slides) for column in values.T], axis=1)  # [S, M]
    counts = np.bincount(codes, minlength=n_slides)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, m))
    step = max(1, CHUNK // n_slides)
    for start in range(0, resamples, step):
        times = rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides), size=min(step, resamples - start))  # [R, S]
        drawn[start : start + step] = resampled_sums(times, sums) / (times @ counts)[:, None]
    ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        {"value": mean, "low": float(low), "high": float(high), "resamples": resamples}
        for mean, low, high in zip(means, *ends, strict=True)
    ]


def resampled_sums(times: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums [R, M] over slides, whose own sums [S, M] count as often as they are drawn, `times` [R, S].

    Each is summed by itself: in a matrix product the order of a sum depends on how many there are, and on the CPU.
    """
    return np.stack([(times * column).sum(axis=1) for column in sums.T], axis=1)
