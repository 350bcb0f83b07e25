"""Operating point: a threshold chosen on some patches and applied to others, its scores, and decision curves."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.confidence import PLAIN, SHARE, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.metrics import ROUNDING
from pcam_ssl.evaluation.resampled_sums import resampled_totals

SENSITIVITY, SPECIFICITY = "sensitivity", "specificity"
PER = {"false_positives_per_1000": 1000}
"""Scores that are counts per this many patches."""
OUTCOMES = ("true positive", "false negative", "false positive", "true negative")


@dataclass(frozen=True)
class Target:
    """The target of a threshold: at least `share` (0 to 1) of `measure` (sensitivity or specificity), with the other as high as possible."""

    measure: str = SENSITIVITY
    share: float = 0.95

    @property
    def text(self) -> str:
        """'sensitivity of 95%'."""
        return f"{self.measure} of {100 * self.share:.6g}%"


def target_asked(sensitivity: float | None, specificity: float | None) -> Target:
    """The target for the one share that is given, else the default target. Raises UserError where both are given or one is not in (0, 1]."""
    if sensitivity is not None and specificity is not None:
        raise UserError("--sensitivity, --specificity: one threshold cannot keep both; name one of them")
    for measure, share in ((SENSITIVITY, sensitivity), (SPECIFICITY, specificity)):
        if share is None:
            continue
        if not 0 < share <= 1:
            like = f", say {share / 100:g}" if 1 < share <= 100 else ""
            raise UserError(f"--{measure} {share:g}: not a share; name a number above 0 and at most 1{like}")
        return Target(measure, share)
    return Target()


def choose_threshold(labels, probs, target: Target) -> float:
    """The threshold that meets the target on labels [N] (both classes) and probs [N]. A patch is called tumor at or above it.

    It is the highest prob that reaches the sensitivity, or the lowest that keeps the specificity. It is infinite, and no patch is
    called, where even the highest prob misses the specificity.
    """
    false_rate, true_rate, thresholds = roc_curve(labels, probs, drop_intermediate=False)
    if target.measure == SENSITIVITY:
        return float(thresholds[np.argmax(true_rate >= target.share - ROUNDING)])
    return float(thresholds[np.flatnonzero(false_rate <= 1 - target.share + ROUNDING)[-1]])


def outcomes(labels, called) -> np.ndarray:
    """Index into `OUTCOMES` of each patch, int [N], from labels [N] and `called`, whether it was called tumor, bool [N]."""
    labels, called = np.asarray(labels, dtype=bool), np.asarray(called, dtype=bool)
    return np.where(labels, ~called * 1, 3 - called * 1)


def outcome_scores(cells, groups, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> dict[str, dict]:
    """Sensitivity, specificity, precision, and false positives per 1,000 patches, from `outcomes` [N], each with its interval.

    {name: {"value", "low", "high"}}, with intervals from resampled `groups` as in `bootstrap.intervals`. An undefined score is
    None, and resamples in which it is undefined are dropped.
    """
    cells = np.asarray(cells)
    values = _scores(np.bincount(cells, minlength=4)[None].astype(np.float64))
    drawn = _scores(resampled_totals(cells, 4, groups, resamples, seed))
    counted = count_groups(group_codes(groups, len(cells)), cells < 2)
    scores = {}
    for name, (value,) in values.items():
        defined, per = drawn[name][np.isfinite(drawn[name])], PER.get(name, 1)
        low = high = None
        if counted.enough and len(defined) > 1 and np.isfinite(value):
            low, high = (per * float(end) for end in student_interval(value / per, defined / per, counted, SHARE, level))
        scores[name] = {"value": None if np.isnan(value) else float(value), "low": low, "high": high}
    return scores


def _scores(totals: np.ndarray) -> dict[str, np.ndarray]:
    """Scores [R], NaN where undefined, from counts [R, 4] of the outcomes."""
    tp, fn, fp, tn = totals.T
    with np.errstate(invalid="ignore"):
        return {
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
            "precision": tp / (tp + fp),
            "false_positives_per_1000": 1000 * fp / totals.sum(axis=1),
        }


THRESHOLDS = np.arange(1, 100) / 100


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit per patch at `THRESHOLDS`, [99] each. `low` and `high` bound that of the network. `gain_low` is the lower bound of
    its gain over the better of treating all and treating none. These three are None where nothing can be resampled."""

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
        """Thresholds at which the network is measurably better than treating all and treating none, bool [99]."""
        return np.zeros(len(THRESHOLDS), bool) if self.gain_low is None else self.gain_low > 0


def decision_curve(labels, probs, groups, resamples: int = 500, seed: int = 0, level: float = 0.95) -> DecisionCurve:
    """The decision curve (Vickers and Elkin 2006) from labels [N] and calibrated probs [N] of class 1, with pointwise bands.

    At threshold p a false positive costs as much as p / (1 - p) true positives gain, the trade-off of someone who acts from
    prob p on. `groups` [N] is resampled as in `bootstrap.intervals`. The thresholds are a fixed grid; none is chosen here.
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
    """Net benefit [R, 99] of the network and of treating all, from counts [R, 2 * 100]. Probs in cell j are above the first j thresholds."""
    called = totals.reshape(len(totals), 2, -1)[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # [R, 2, 100] at or above
    n = called[:, :, 0].sum(axis=1, keepdims=True)
    cost = THRESHOLDS / (1 - THRESHOLDS)
    network = (called[:, 1, 1:] - called[:, 0, 1:] * cost) / n
    return network, (called[:, 1, :1] - called[:, 0, :1] * cost) / n
