"""Net benefit: what calls at a threshold are worth, set against calling every patch or none. No torch."""

from dataclasses import dataclass

import numpy as np

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.tallies import resampled_totals

THRESHOLDS = np.arange(1, 100) / 100


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per patch at `THRESHOLDS`, [99] each; `low` and `high` bound the network's, `gain_low` its lead over the better
    of treating all and treating none. The three are None where nothing can be resampled."""

    network: np.ndarray
    treat_all: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    gain_low: np.ndarray | None

    @property
    def best_default(self) -> np.ndarray:
        """Net benefit of the better of treating all and treating none."""
        return np.maximum(self.treat_all, 0)

    @property
    def better(self) -> np.ndarray:
        """Where the network is measurably better than both, bool [99]."""
        return np.zeros(len(THRESHOLDS), bool) if self.gain_low is None else self.gain_low > 0


def decision_curve(labels, probs, groups, resamples: int = 500, seed: int = 0, level: float = 0.95) -> DecisionCurve:
    """The curve of labels [N] and calibrated probs [N] of class 1 (Vickers and Elkin 2006), with pointwise bands.

    At a threshold p of prob a false positive costs p / (1 - p) true positives: whoever acts at p holds the two for so
    unequal. `groups` [N] is resampled as in `bootstrap.intervals`. Thresholds are a grid, so none is chosen here.
    """
    n_cells = len(THRESHOLDS) + 1
    cells = np.searchsorted(THRESHOLDS, probs, side="right") + n_cells * np.asarray(labels, dtype=np.int64)
    ((network,), (treat_all,)) = _benefit(np.bincount(cells, minlength=2 * n_cells)[None])
    drawn = resampled_totals(cells, 2 * n_cells, groups, resamples, seed)
    counted = count_groups(group_codes(groups, len(cells)), labels)
    if not len(drawn) or not counted.enough:
        return DecisionCurve(network, treat_all, None, None, None)
    drawn_network, drawn_all = _benefit(drawn)
    low, high = student_interval(network, drawn_network, counted, PLAIN, level)
    gain, drawn_gain = network - np.maximum(treat_all, 0), drawn_network - np.maximum(drawn_all, 0)
    gain_low, _ = student_interval(gain, drawn_gain, counted, PLAIN, level)
    return DecisionCurve(network, treat_all, low, high, gain_low)


def _benefit(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Net benefit [R, 99] of the network and of treating all, from counts [R, 2 * 100]: cell j lies above the first j thresholds."""
    called = totals.reshape(len(totals), 2, -1)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # [R, 2, 100] at or above
    n = called[:, :, 0].sum(axis=1, keepdims=True)
    cost = THRESHOLDS / (1 - THRESHOLDS)
    network = (called[:, 1, 1:] - called[:, 0, 1:] * cost) / n
    return network, (called[:, 1, :1] - called[:, 0, :1] * cost) / n
