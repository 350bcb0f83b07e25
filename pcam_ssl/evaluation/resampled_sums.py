"""Slide-clustered bootstrap (Field and Welsh 2007) of means and counts, from the sums and counts of each slide.

`bootstrap` does the same for scores.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, group_codes, student_interval

MEANS_CHUNK = 2**22


def mean_intervals(
    values: np.ndarray, slides=None, resamples: int = 2000, seed: int = 0, level: float = 0.95, kind: str = PLAIN
) -> list[dict]:
    """The mean of each column of values [N, M] with its interval (`confidence.student_interval`, `kind`): {"value", "low", "high", "resamples"}.

    `slides` [N] are names; patches without a slide count as one slide. With `slides` None every patch is its own slide, and intervals
    are too narrow where patches share slides. With one slide `low` and `high` are None and `reason` says so. All columns share
    the same resamples.
    """
    n, m = values.shape
    codes = group_codes(slides, n)
    counted = count_groups(codes)
    n_slides = counted.n
    means = [float(column.mean()) for column in values.T]
    if not counted.enough:
        return [{"value": mean, "low": None, "high": None, "resamples": 0, "reason": "one slide only"} for mean in means]
    sums = np.stack([np.bincount(codes, column, n_slides) for column in values.T], axis=1)  # [S, M]
    counts = np.bincount(codes, minlength=n_slides)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, m))
    step = max(1, MEANS_CHUNK // n_slides)
    for start in range(0, resamples, step):
        times = rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides), size=min(step, resamples - start))  # [R, S]
        drawn[start : start + step] = resampled_sums(times, sums) / (times @ counts)[:, None]
    # One column at a time: numpy would sum the spread of several columns in another order.
    ends = [student_interval(mean, column.copy(), counted, kind, level) for mean, column in zip(means, drawn.T, strict=True)]
    return [
        {"value": mean, "low": float(low), "high": float(high), "resamples": resamples}
        for mean, (low, high) in zip(means, ends, strict=True)
    ]


def resampled_sums(times: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums [R, M] of the slides' `sums` [S, M], each slide counted as often as it is drawn, `times` [R, S].

    Columns are summed one at a time: in a matrix product the order of a sum depends on the number of columns and on the CPU.
    """
    return np.stack([(times * column).sum(axis=1) for column in sums.T], axis=1)


# Weights in one chunk of resamples: 64 MB.
COUNT_WEIGHTS = 2**23


def resampled_totals(cells, n_cells: int, groups, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Number of patches in each cell in every resample, float64 [R, C], from the cell of each patch, int [N] in 0..C-1.

    `groups` [N] names the slide of each patch; patches without a slide count as one slide. With `groups` None every patch is its own
    slide, and intervals are too narrow where patches share slides. R is 0 where there is only one slide.
    """
    cells, rng = np.asarray(cells, dtype=np.int64), np.random.default_rng(seed)
    n = len(cells)
    if groups is None:
        # The cell counts of n patches drawn with replacement are multinomial.
        shares = np.bincount(cells, minlength=n_cells) / max(n, 1)
        return rng.multinomial(n, shares, size=resamples if n > 1 else 0).astype(np.float64)
    codes, names = pd.factorize(pd.array(groups, dtype="str"), sort=True, use_na_sentinel=False)
    if len(names) < 2:
        return np.empty((0, n_cells))
    counts = csr_array((np.ones(n), (cells, codes)), shape=(n_cells, len(names)))
    totals, step = np.empty((resamples, n_cells)), max(1, COUNT_WEIGHTS // len(names))
    even = np.full(len(names), 1 / len(names))
    for start in range(0, resamples, step):
        weights = rng.multinomial(len(names), even, size=min(step, resamples - start))
        totals[start : start + step] = (counts @ weights.T.astype(np.float64)).T
    return totals
