"""From values of a score in resamples of slides to its confidence interval. No torch.

Percentiles of a cluster bootstrap are too narrow below about 70 slides (Cameron, Gelbach and Miller 2008). So the bootstrap gives the
standard error alone, scaled by sqrt(G / (G - 1)) for G slides; the interval is built on the scale where a score's error is about
normal (logit of a share, log of a positive number), with Student's t. Its degrees of freedom are one less than the effective slides
of the rarer class: 34 slides of which four hold tumor know as much of tumor as four, and slides of 1 and of 133 patches do not count
alike (Kish 1965: the squared sum over the sum of squares; Carter, Schnepel and Steigerwald 2017 do so for regressions). Coverage in
simulation: RESULTS.md, made by scripts/interval_coverage.py.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t as student

SHARE, POSITIVE, PLAIN = "share", "positive", "plain"
"""What a value is: within 0 and 1, above 0, or any number."""
FEWEST = 2
"""Slides of the rarer class below which there is no interval."""


@dataclass(frozen=True)
class Groups:
    """How many groups (slides) are resampled, how many hold the class that fewer of them hold, and for how many equal ones these count."""

    n: int
    rarer: int
    effective: float

    @property
    def enough(self) -> bool:
        """Whether any spread between groups can be seen."""
        return self.rarer >= FEWEST

    @property
    def freedom(self) -> float:
        """Degrees of freedom that they leave a variance between groups."""
        return max(self.effective - 1, 1.0)

    @property
    def correction(self) -> float:
        """By what the variance between resamples must be multiplied: G groups drawn with replacement show (G - 1) / G of it."""
        return self.n / (self.n - 1)


def count_groups(codes, labels=None) -> Groups:
    """Groups by number `codes` int [N]; with `labels` [N] 0 or 1 the rarer class is counted, else all patches are of one."""
    codes = np.asarray(codes)
    classes = [np.ones(len(codes), bool)] if labels is None else [np.asarray(labels) == label for label in (0, 1)]
    sizes = [np.unique(codes[rows], return_counts=True)[1].astype(np.float64) for rows in classes]
    effective = min(float(each.sum() ** 2 / (each**2).sum()) if len(each) else 0.0 for each in sizes)
    return Groups(len(np.unique(codes)), min(map(len, sizes)), effective)


def group_codes(groups, n_rows: int) -> np.ndarray:
    """Number of each row's group, int [N]; rows without a name count as one group, and `groups` None makes each row its own."""
    if groups is None:
        return np.arange(n_rows)
    return pd.factorize(pd.array(groups, dtype="str"), sort=True, use_na_sentinel=False)[0]


def student_interval(value, drawn, groups: Groups, kind: str = SHARE, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval of values [...] from their resamples, `drawn` [R, ...] of the same shape behind R.

    NaN in `drawn` (a resample that does not define the score) is left out. A share of exactly 0 or 1 shows no spread: its
    interval is that of Clopper and Pearson 1934 for as many trials as there are effective groups of the rarer class. Raises ValueError where
    `groups` are not enough.
    """
    if not groups.enough:
        raise ValueError(f"{groups.rarer} groups of the rarer class")
    value, drawn = np.asarray(value, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
    there, back = _scale(value, kind)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.nanstd(there(drawn), axis=0, ddof=1) * np.sqrt(groups.correction)
        reach = student.ppf((1 + level) / 2, groups.freedom) * spread
        low, high = back(there(value) - reach), back(there(value) + reach)
    if kind != SHARE:
        return low, high
    bound = ((1 - level) / 2) ** (1 / groups.effective)
    low, high = np.where(value == 1, bound, low), np.where(value == 1, 1.0, high)
    return np.where(value == 0, 0.0, low), np.where(value == 0, 1 - bound, high)


def _scale(value: np.ndarray, kind: str):
    """To the scale on which the interval is symmetric, and back."""
    if kind == PLAIN:
        return (lambda x: x), (lambda x: x)
    if kind == POSITIVE:
        return np.log, np.exp
    # A resample of share 0 or 1 has no logit; it counts as ten times as near to that end as the value, and as 1e-4 at most.
    near = np.minimum(1e-4, np.minimum(value, 1 - value) / 10)
    return (lambda x: logit(np.clip(x, near, 1 - near))), expit
