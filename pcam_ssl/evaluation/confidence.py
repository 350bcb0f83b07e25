"""Confidence intervals from few slides: Student's t for resampled scores, and clustered bounds for a proportion."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import betaincinv, expit, logit, stdtrit
from scipy.stats import t as student

SHARE, POSITIVE, PLAIN = "share", "positive", "plain"
"""Range of a value: 0 to 1, above 0, or any number."""
FEWEST = 2
"""With fewer slides of the rarer class there is no interval."""


@dataclass(frozen=True)
class Groups:
    """Number of groups (slides) that are resampled, how many of them hold the rarer class, and the effective number of groups of equal size."""

    n: int
    rarer: int
    effective: float

    @property
    def enough(self) -> bool:
        """Whether the spread between groups can be estimated."""
        return self.rarer >= FEWEST

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the variance between groups."""
        return max(self.effective - 1, 1.0)

    @property
    def correction(self) -> float:
        """Factor G / (G - 1) for the variance between resamples: G groups drawn with replacement show (G - 1) / G of the true variance."""
        return self.n / (self.n - 1)


def count_groups(codes, labels=None) -> Groups:
    """Groups from the group number of each row, `codes` int [N], and `labels` [N] 0 or 1; without labels all rows are of one class."""
    codes = np.asarray(codes)
    classes = [np.ones(len(codes), bool)] if labels is None else [np.asarray(labels) == label for label in (0, 1)]
    sizes = [np.unique(codes[rows], return_counts=True)[1].astype(np.float64) for rows in classes]
    effective = min(float(each.sum() ** 2 / (each**2).sum()) if len(each) else 0.0 for each in sizes)
    return Groups(len(np.unique(codes)), min(map(len, sizes)), effective)


def group_codes(groups, n_rows: int) -> np.ndarray:
    """Group number of each row, int [N]. Rows without a name count as one group; with `groups` None each row is its own group."""
    if groups is None:
        return np.arange(n_rows)
    return pd.factorize(pd.array(groups, dtype="str"), sort=True, use_na_sentinel=False)[0]


def student_interval(value, drawn, groups: Groups, kind: str = SHARE, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the interval of `value` [...] from its resamples `drawn` [R, ...].

    NaN in `drawn` (the score is undefined in that resample) is dropped. A share of exactly 0 or 1 has no spread; its
    interval is that of Clopper and Pearson 1934, with the effective groups of the rarer class as trials. Raises ValueError where
    there are too few `groups`.
    """
    if not groups.enough:
        raise ValueError(f"{groups.rarer} groups of the rarer class")
    value, drawn = np.asarray(value, dtype=np.float64), np.asarray(drawn, dtype=np.float64)
    forward, back = _scale(value, kind)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.nanstd(forward(drawn), axis=0, ddof=1) * np.sqrt(groups.correction)
        half_width = student.ppf((1 + level) / 2, groups.freedom) * spread
        low, high = back(forward(value) - half_width), back(forward(value) + half_width)
    if kind != SHARE:
        return low, high
    bound = ((1 - level) / 2) ** (1 / groups.effective)
    low, high = np.where(value == 1, bound, low), np.where(value == 1, 1.0, high)
    return np.where(value == 0, 0.0, low), np.where(value == 0, 1 - bound, high)


def summed_half_width(parts: list[tuple[float, float]], level: float = 0.95) -> float:
    """Half the interval of a value whose variance is a sum of independent parts, (variance, degrees of freedom) each.

    Student's t with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
    """
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    return float(student.ppf((1 + level) / 2, freedom) * np.sqrt(total))


def _scale(value: np.ndarray, kind: str):
    """The transform to the scale on which the interval is symmetric, and its inverse."""
    if kind == PLAIN:
        return (lambda x: x), (lambda x: x)
    if kind == POSITIVE:
        return np.log, np.exp
    # A resampled share of 0 or 1 has no finite logit. It is moved inwards by a tenth of the value's distance to that end, at most 1e-4.
    near = np.minimum(1e-4, np.minimum(value, 1 - value) / 10)
    return (lambda x: logit(np.clip(x, near, 1 - near))), expit


@dataclass(frozen=True)
class NestedShares:
    """Shares of correct rows; element k is over rows 0..k, so one pass covers every threshold of a sorted table. All arrays are [N]."""

    right: np.ndarray
    n: np.ndarray
    clusters: np.ndarray
    design_effect: np.ndarray  # variance relative to that of independent patches, at least 1; n where there is one cluster

    def at(self, places) -> "NestedShares":
        """The shares at `places` only."""
        return NestedShares(self.right[places], self.n[places], self.clusters[places], self.design_effect[places])


def nested_shares(right, slides=None) -> NestedShares:
    """Shares of `right` bool [N] over rows 0..k for each k. Clusters are `slides` [N]; a patch without a slide is its own cluster."""
    wrong = 1.0 - np.asarray(right, dtype=np.float64)
    n = np.arange(1.0, len(wrong) + 1)
    own_n, own_wrong = _earlier_of_cluster(cluster_codes(slides, len(wrong)), wrong)
    # Running sums over clusters of wrong^2, wrong * n and n^2; each row adds the change in its own cluster.
    wrong_wrong = np.cumsum(wrong * (2 * own_wrong + 1))
    wrong_n = np.cumsum(own_wrong + wrong * (own_n + 1))
    n_n = np.cumsum(2 * own_n + 1)
    clusters = np.cumsum(own_n == 0)
    share = np.cumsum(wrong) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = wrong_wrong - 2 * share * wrong_n + share**2 * n_n
        variance = clusters / (clusters - 1) * residual / n**2
        effect = variance * (n - 1) / (share * (1 - share))
    effect = np.where((share == 0) | (share == 1), 1, np.maximum(effect, 1))
    return NestedShares(n - np.cumsum(wrong), n, clusters, np.where(clusters == 1, n, effect))


def lower_bound(shares: NestedShares, level: float) -> np.ndarray:
    """One-sided lower confidence bound of each share, [N]. It lies below the true share with probability `level`."""
    n = _effective(shares, level)
    right = n * shares.right / shares.n
    return np.where(right > 0, betaincinv(np.maximum(right, 1e-300), n - right + 1, 1 - level), 0.0)


def upper_bound(shares: NestedShares, level: float) -> np.ndarray:
    """One-sided upper confidence bound of each share, [N]. It lies above the true share with probability `level`."""
    n = _effective(shares, level)
    wrong = n * (shares.n - shares.right) / shares.n
    return np.where(wrong > 0, betaincinv(n - wrong + 1, np.maximum(wrong, 1e-300), level), 1.0)


def faultless_bound(n: int, clusters: int, level: float) -> float:
    """Lower bound of precision where all of `n` patches of `clusters` slides are correct: the highest precision they can prove."""
    if not n:
        return 0.0
    ones = np.ones(1)
    shares = NestedShares(n * ones, n * ones, clusters * ones, n * ones if clusters == 1 else ones)
    return float(lower_bound(shares, level)[0])


def faultless_patches(precision: float, clusters: int, level: float) -> int | None:
    """The number of patches of `clusters` slides, all correct, that proves `precision`; None where no number does, as on one slide."""
    if clusters < 2:
        return None
    low, high = clusters, clusters
    while faultless_bound(high, clusters, level) < precision:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if faultless_bound(middle, clusters, level) >= precision else (middle + 1, high)
    return high


def share_interval(right, slides=None, level: float = 0.95) -> dict[str, float | int | None]:
    """Two-sided interval of the share of `right` bool [N]: {"value", "low", "high", "right", "n"}. The first three are None without rows."""
    right = np.asarray(right, dtype=bool)
    counts = {"right": int(right.sum()), "n": len(right)}
    if not len(right):
        return {"value": None, "low": None, "high": None, **counts}
    last, side = nested_shares(right, slides).at([-1]), (1 + level) / 2
    return {
        "value": counts["right"] / counts["n"],
        "low": float(lower_bound(last, side)[0]),
        "high": float(upper_bound(last, side)[0]),
        **counts,
    }


def cluster_codes(slides, n_rows: int) -> np.ndarray:
    """Cluster number of each row, int [N]. A slide is one cluster; each patch without a slide is its own cluster."""
    if slides is None:
        return np.arange(n_rows)
    codes, names = pd.factorize(pd.array(slides, dtype="str"))
    return np.where(codes < 0, len(names) + np.arange(n_rows), codes)


def _earlier_of_cluster(codes: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row, the number of earlier rows of its cluster and how many of these are wrong; both [N]."""
    order = np.argsort(codes, kind="stable")
    first = np.diff(codes[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    wrong_before = np.cumsum(wrong[order]) - wrong[order]
    own_n, own_wrong = np.empty(len(codes)), np.empty(len(codes))
    own_n[order] = np.arange(len(codes)) - start
    own_wrong[order] = wrong_before - wrong_before[start]
    return own_n, own_wrong


def _effective(shares: NestedShares, level: float) -> np.ndarray:
    """Effective number of independent patches, [N]: n divided by the design effect, and lower still where few slides estimate it.

    It is at least 1. One slide counts as one patch, because one slide does not show the spread between slides.
    """
    with np.errstate(invalid="ignore"):
        freedom = (stdtrit(shares.n - 1, level) / stdtrit(shares.clusters - 1, level)) ** 2
    freedom = np.where(shares.clusters == 1, 1.0, freedom)
    return np.maximum(shares.n / shares.design_effect * freedom, 1.0)
