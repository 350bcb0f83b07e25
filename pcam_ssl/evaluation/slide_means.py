"""Intervals of plain means over patches, from resampling whole slides (Field and Welsh 2007, cluster bootstrap). No torch.

A mean needs only each slide's sum and count, so this is shorter than `bootstrap`, which resamples scores of sorted probs.
"""

import numpy as np

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, group_codes, student_interval

CHUNK = 2**22


def mean_intervals(
    values: np.ndarray, slides=None, resamples: int = 2000, seed: int = 0, level: float = 0.95, kind: str = PLAIN
) -> list[dict]:
    """For each column of values [N, M] its mean with its interval (`confidence.student_interval`, `kind`): {"value", "low", "high", "resamples"}.

    `slides` [N] are names (patches without one count as one slide); None makes every patch a slide of its own, which is too
    narrow where patches share slides. With one slide `low` and `high` are None and `reason` says so. All columns are
    resampled together.
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
    step = max(1, CHUNK // n_slides)
    for start in range(0, resamples, step):
        times = rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides), size=min(step, resamples - start))  # [R, S]
        drawn[start : start + step] = resampled_sums(times, sums) / (times @ counts)[:, None]
    # Each column by itself: beside others its spread would be summed in another order.
    ends = [student_interval(mean, column.copy(), counted, kind, level) for mean, column in zip(means, drawn.T, strict=True)]
    return [
        {"value": mean, "low": float(low), "high": float(high), "resamples": resamples}
        for mean, (low, high) in zip(means, ends, strict=True)
    ]


def resampled_sums(times: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums [R, M] over slides, whose own sums [S, M] count as often as they are drawn, `times` [R, S].

    Each is summed by itself: in a matrix product the order of a sum depends on how many there are, and on the CPU.
    """
    return np.stack([(times * column).sum(axis=1) for column in sums.T], axis=1)
