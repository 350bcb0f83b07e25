"""ROC and precision-recall curves with bands from resampled slides, and reliability by bins of prob."""

from dataclasses import dataclass

import numpy as np

from pcam_ssl.evaluation.confidence import PLAIN, Groups, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.metrics import ECE_BINS, ROUNDING, ece_bin
from pcam_ssl.evaluation.resampled_sums import resampled_totals

CELLS = 1000
GRID = np.linspace(0, 1, 101)
RESAMPLES = 500


@dataclass(frozen=True)
class Curve:
    """A curve at up to 1,001 thresholds, the highest first. `low` and `high` [101] bound y at x = `GRID`; None without a band."""

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    steps: bool
    """Whether the curve is drawn in steps, as precision-recall is; a ROC curve is linear between points."""

    def at(self, x: float) -> tuple[float, float | None, float | None]:
        """y at x, and its interval at the nearest point of the grid."""
        place = np.argmin(np.abs(GRID - x))
        ends = (None, None) if self.low is None else (float(self.low[place]), float(self.high[place]))
        return float((_held if self.steps else np.interp)(x, self.x, self.y)), *ends


def roc(labels, probs, groups, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Curve:
    """ROC curve (x: false positive rate, y: true positive rate) from labels [N] (both classes) and probs [N] of class 1, with a pointwise band.

    The band comes from resampled `groups` [N], the slide of each row; None resamples patches. Resamples with one class are dropped;
    there is no band where no others can be drawn.
    """
    (other, tumor), drawn = _called(labels, probs, groups, resamples, seed)
    x, y = other / other[-1], tumor / tumor[-1]
    curves = [np.interp(GRID, false / false[-1], true / true[-1]) for false, true in drawn]
    return Curve(x, y, *_band(np.interp(GRID, x, y), curves, _counted(labels, groups), level), steps=False)


def precision_recall(labels, probs, groups, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95) -> Curve:
    """Precision-recall curve (x: recall, y: precision); arguments and band as in `roc`.

    Precision at a recall is that of the highest threshold that reaches this recall, so the area under the steps is the average
    precision. Linear interpolation would show precision that no threshold reaches (Davis and Goadrich 2006).
    """
    (other, tumor), drawn = _called(labels, probs, groups, resamples, seed)
    x, y = tumor[1:] / tumor[-1], _precision(other, tumor)[1:]
    held = [_held(GRID, true / true[-1], _precision(false, true)) for false, true in drawn]
    return Curve(x, y, *_band(_held(GRID, x, y), held, _counted(labels, groups), level), steps=True)


def _called(labels, probs, groups, resamples: int, seed: int):
    """Counts of other and of tumor patches called tumor at each falling threshold, [2, C + 1] from 0 on: of all rows, and of each
    resample that holds both classes."""
    edges = np.unique(np.quantile(probs, np.linspace(0, 1, CELLS + 1), method="lower"))
    cells = len(edges) - np.searchsorted(edges, probs, side="right")  # 0 holds the highest probs; equal probs share a cell
    cells = cells + len(edges) * np.asarray(labels)
    whole = _summed(np.bincount(cells, minlength=2 * len(edges)))
    drawn = (_summed(totals) for totals in resampled_totals(cells, 2 * len(edges), groups, resamples, seed))
    return whole, [pair for pair in drawn if pair[:, -1].all()]


def _summed(totals: np.ndarray) -> np.ndarray:
    """Cumulative counts [2, C + 1] from counts [2C]."""
    counts = np.cumsum(totals.reshape(2, -1), axis=1)
    from_zero = np.zeros((2, counts.shape[1] + 1), counts.dtype)  # np.pad takes longer than the sum, a thousand times a page
    from_zero[:, 1:] = counts
    return from_zero


def _precision(false: np.ndarray, true: np.ndarray) -> np.ndarray:
    return true / np.maximum(false + true, 1)


def _held(x, xs: np.ndarray, ys: np.ndarray):
    """y at the first of the rising `xs` that reaches x and is above 0."""
    return ys[np.searchsorted(xs, np.clip(x, ROUNDING, 1) - ROUNDING / 2)]


def _counted(labels, groups) -> Groups:
    return count_groups(group_codes(groups, len(labels)), labels)


def _band(value: np.ndarray, drawn: list[np.ndarray], counted: Groups, level: float) -> tuple:
    """Lower and upper end of the band along the curve, clipped to 0..1; None, None without a band."""
    if len(drawn) < 2 or not counted.enough:
        return None, None
    return tuple(np.clip(end, 0, 1) for end in student_interval(value, np.stack(drawn), counted, PLAIN, level))


@dataclass(frozen=True)
class ReliabilityBin:
    """The patches whose prob falls in one bin: how many, their mean prob, and the share that is tumor."""

    left: float
    right: float
    n: int
    mean_prob: float
    tumor_share: float


def reliability(labels, probs) -> list[ReliabilityBin]:
    """The non-empty bins of the ECE (equal width), from labels [N] and probs [N] of class 1."""
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
