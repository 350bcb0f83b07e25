"""The numbers behind the charts: the ROC curve with a band from resampled slides, and reliability by bins of prob. No torch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from pcam_ssl.inference.metrics import ECE_BINS, ece_bin

CELLS = 1000
FALSE_RATES = np.linspace(0, 1, 101)
# Weights of a chunk of resamples, in numbers: 64 MB.
WEIGHTS = 2**23


@dataclass(frozen=True)
class Roc:
    """A ROC curve at up to 1,001 thresholds; `low` and `high` [101] bound the true rate at `FALSE_RATES`, or are None."""

    false_rate: np.ndarray
    true_rate: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None

    def at(self, false_rate: float) -> tuple[float, float | None, float | None]:
        """The true rate at a false rate, and its interval."""
        place = np.argmin(np.abs(FALSE_RATES - false_rate))
        ends = (None, None) if self.low is None else (float(self.low[place]), float(self.high[place]))
        return float(np.interp(false_rate, self.false_rate, self.true_rate)), *ends


def roc(labels, probs, groups, resamples: int = 500, seed: int = 0, level: float = 0.95) -> Roc:
    """The curve of labels [N] (both classes) and probs [N] of class 1, its pointwise percentile band from resampled groups.

    `groups` [N] names the slide of each row; None resamples patches. Resamples of one
    class are left out; there is no band where nothing else can be drawn.
    """
    codes = np.arange(len(labels)) if groups is None else pd.factorize(pd.array(groups, dtype="str"), use_na_sentinel=False)[0]
    n_groups = int(codes.max()) + 1
    edges = np.unique(np.quantile(probs, np.linspace(0, 1, CELLS + 1), method="lower"))
    cells = len(edges) - np.searchsorted(edges, probs, side="right")  # 0 holds the highest probs; equal probs share a cell
    rows = cells + len(edges) * np.asarray(labels)
    counts = csr_array((np.ones(len(labels)), (rows, codes)), shape=(2 * len(edges), n_groups))
    false_rate, true_rate = _rates(counts @ np.ones((n_groups, 1)))
    if n_groups < 2:
        return Roc(false_rate[:, 0], true_rate[:, 0], None, None)
    rng = np.random.default_rng(seed)
    drawn, step = [], max(1, WEIGHTS // n_groups)
    for start in range(0, resamples, step):
        n = min(resamples - start, step)
        weights = np.stack([np.bincount(rng.integers(n_groups, size=n_groups), minlength=n_groups) for _ in range(n)], axis=1)
        pairs = zip(*(rates.T for rates in _rates(counts @ weights)), strict=True)
        drawn += [np.interp(FALSE_RATES, *pair) for pair in pairs if np.isfinite(pair).all()]
    if not drawn:
        return Roc(false_rate[:, 0], true_rate[:, 0], None, None)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Roc(false_rate[:, 0], true_rate[:, 0], low, high)


def _rates(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true rate [C + 1, R] above each cell, from counts [2C, R]; NaN in resamples of one class."""
    halves = [np.vstack([np.zeros((1, half.shape[1])), np.cumsum(half, axis=0)]) for half in np.split(counts, 2)]
    with np.errstate(invalid="ignore"):
        return tuple(half / half[-1] for half in halves)


@dataclass(frozen=True)
class ReliabilityBin:
    """The patches whose prob falls in one bin: how many, their mean prob, and the share that is tumor."""

    left: float
    right: float
    n: int
    mean_prob: float
    tumor_share: float


def reliability(labels, probs) -> list[ReliabilityBin]:
    """Non-empty bins of equal width, the same as the ECE's, from labels [N] and probs [N] of class 1."""
    labels, probs, bins = np.asarray(labels), np.asarray(probs), ece_bin(probs)
    return [
        ReliabilityBin(
            b / ECE_BINS,
            (b + 1) / ECE_BINS,
            int(np.sum(bins == b)),
            float(probs[bins == b].mean()),
            float(labels[bins == b].mean()),
        )
        for b in np.unique(bins)
    ]
