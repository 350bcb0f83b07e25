"""Intervals of plain means over patches, from resampling whole slides (Field and Welsh 2007, cluster bootstrap). No torch.

A mean needs only each slide's sum and count, so this is shorter than `bootstrap`, which resamples scores of sorted probs.
"""

import numpy as np

from pcam_ssl.inference.confidence import PLAIN, count_groups, group_codes, student_interval

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
    if not counted.enough:
        return [
            {"value": float(mean), "low": None, "high": None, "resamples": 0, "reason": "one slide only"}
            for mean in values.mean(axis=0)
        ]
    sums = np.stack([np.bincount(codes, column, n_slides) for column in values.T], axis=1)  # [S, M]
    counts = np.bincount(codes, minlength=n_slides)
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, m))
    step = max(1, CHUNK // n_slides)
    for start in range(0, resamples, step):
        times = rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides), size=min(step, resamples - start))  # [R, S]
        drawn[start : start + step] = (times @ sums) / (times @ counts)[:, None]
    means = values.mean(axis=0)
    ends = student_interval(means, drawn, counted, kind, level)
    return [
        {"value": float(mean), "low": float(low), "high": float(high), "resamples": resamples}
        for mean, low, high in zip(means, *ends, strict=True)
    ]
