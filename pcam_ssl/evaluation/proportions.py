"""How low a precision may be, given patches that share slides (Korn and Graubard 1998). No torch.

Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts estimated from
survey data (Survey Methodology 24): the patches count as the smaller number of independent ones that would leave the share
as unsure, and the interval of Clopper and Pearson is taken for that number. Twenty right of twenty is then no proof of 0.98,
as it would be for any interval made of a standard error.

Where nothing is wrong, no variance between slides is seen: the patches then count in full, but for the few slides. A kind of slide
that the model gets wrong and that no inner slide shows is beyond this bound. Measured on simulated slides (beta-distributed
precision), a bound at 0.95 holds in 0.93 to 0.97 of cases with 4 to 25 slides of 40 to 100 patches and a correlation within slides of
0.02 to 0.1; in 0.89 with 25 slides of 400 patches, precision 0.98, correlation 0.05; in 0.76 at a correlation of 0.2 to 0.3. Counting
patches as independent holds in less than 0.85 with 20 slides of 40 patches and correlation 0.1.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import betaincinv, stdtrit


@dataclass(frozen=True)
class NestedShares:
    """Element k is the share right of rows 0..k, so that one pass serves every threshold of a sorted table; all [N]."""

    right: np.ndarray
    n: np.ndarray
    clusters: np.ndarray
    design_effect: np.ndarray  # variance over that of independent patches, at least 1; n where there is one cluster

    def at(self, places) -> "NestedShares":
        """The shares at `places` alone."""
        return NestedShares(self.right[places], self.n[places], self.clusters[places], self.design_effect[places])


def nested_shares(right, slides=None) -> NestedShares:
    """Shares of `right` bool [N] over rows 0..k for each k; `slides` [N] or None, a patch without one is its own cluster."""
    wrong = 1.0 - np.asarray(right, dtype=np.float64)
    n = np.arange(1.0, len(wrong) + 1)
    own_n, own_wrong = _earlier_of_cluster(cluster_codes(slides, len(wrong)), wrong)
    # Sums over clusters of wrong^2, wrong * n and n^2, each grown by what the row adds to its own cluster.
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
    """One-sided lower confidence bound of each share, [N]: below the true share with probability `level`."""
    n = _effective(shares, level)
    right = n * shares.right / shares.n
    return np.where(right > 0, betaincinv(np.maximum(right, 1e-300), n - right + 1, 1 - level), 0.0)


def upper_bound(shares: NestedShares, level: float) -> np.ndarray:
    """One-sided upper confidence bound of each share, [N]: above the true share with probability `level`."""
    n = _effective(shares, level)
    wrong = n * (shares.n - shares.right) / shares.n
    return np.where(wrong > 0, betaincinv(n - wrong + 1, np.maximum(wrong, 1e-300), level), 1.0)


def faultless_bound(n: int, clusters: int, level: float) -> float:
    """The lower bound that `n` patches of `clusters` slides give where all are right: the most that they can prove."""
    if not n:
        return 0.0
    ones = np.ones(1)
    shares = NestedShares(n * ones, n * ones, clusters * ones, n * ones if clusters == 1 else ones)
    return float(lower_bound(shares, level)[0])


def faultless_patches(precision: float, clusters: int, level: float) -> int | None:
    """How many patches of `clusters` slides, all right, prove `precision`; None where no number does, as on one slide."""
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
    """Two-sided interval of the share of `right` bool [N]: value, low, high (None without rows), and the counts right and n."""
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
    """Cluster of each row, int [N]: one number a slide, and one of its own for each patch without a slide."""
    if slides is None:
        return np.arange(n_rows)
    codes, names = pd.factorize(pd.array(slides, dtype="str"))
    return np.where(codes < 0, len(names) + np.arange(n_rows), codes)


def _earlier_of_cluster(codes: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many earlier rows, and how many wrong ones, are of the row's own cluster; both [N]."""
    order = np.argsort(codes, kind="stable")
    first = np.diff(codes[order], prepend=-1) != 0
    start = np.maximum.accumulate(np.where(first, np.arange(len(codes)), 0))
    wrong_before = np.cumsum(wrong[order]) - wrong[order]
    own_n, own_wrong = np.empty(len(codes)), np.empty(len(codes))
    own_n[order] = np.arange(len(codes)) - start
    own_wrong[order] = wrong_before - wrong_before[start]
    return own_n, own_wrong


def _effective(shares: NestedShares, level: float) -> np.ndarray:
    """Independent patches that would be as sure, [N]: fewer for a design effect, fewer again where few slides measured it.

    One slide counts as one patch, for it says nothing of the spread between slides; no more slides count as less.
    """
    with np.errstate(invalid="ignore"):
        freedom = (stdtrit(shares.n - 1, level) / stdtrit(shares.clusters - 1, level)) ** 2
    freedom = np.where(shares.clusters == 1, 1.0, freedom)
    return np.maximum(shares.n / shares.design_effect * freedom, 1.0)
