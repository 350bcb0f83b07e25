"""Thresholds: for each class, the prob beyond which inner slides prove a precision."""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.evaluation.confidence import faultless_bound, faultless_patches, lower_bound, nested_shares
from pcam_ssl.evaluation.metrics import predicted_class
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.tables import CLASSES

MORE_SLIDES = "label more slides, or raise cv.inner_share where folds do not cross-fit"


@dataclass(frozen=True)
class Threshold:
    """The threshold of one class. `prob` is None where the inner slides do not prove the precision; `reason` says why.

    `bound` (lower confidence bound of the precision), `right`, `n` and `slides` (None where unknown) are counted at `prob`, or at the
    highest bound where `prob` is None.
    """

    label: int
    prob: float | None
    reason: str
    bound: float | None = None
    right: int = 0
    n: int = 0
    slides: int | None = None

    def beyond(self, probs) -> np.ndarray:
        """Which `probs` [N] are beyond the threshold of this class, bool [N]; none are where there is no threshold."""
        probs = np.asarray(probs, dtype=np.float64)
        if self.prob is None:
            return np.zeros(len(probs), dtype=bool)
        return (predicted_class(probs) == self.label) & (probs >= self.prob if self.label else probs <= self.prob)

    def facts(self) -> dict:
        """The fields as JSON values."""
        return asdict(self)


def precision_thresholds(inner: pd.DataFrame, precision: float, level: float, cluster: str = "slide") -> dict[int, Threshold]:
    """For each class the prob nearest 0.5 beyond which the lower bound of the precision at `level` reaches `precision`.

    `inner` holds `label`, `wsi` and calibrated `prob` of patches of one fold's inner slides; `cluster` names what `wsi` holds where
    that is not slides. A patch counts for its predicted class; patches of equal prob are on one side of the threshold.
    The bound is that of one fixed threshold and does not account for the choice among thresholds. In simulation (level 0.95, 8 or 25
    slides that shift the score) the chosen threshold missed its target in 1 to 7 % of cases.
    """
    inner = inner[inner.label.notna()]
    return {label: _threshold(inner, label, precision, level, cluster) for label in (1, 0)}


def _threshold(inner: pd.DataFrame, label: int, precision: float, level: float, cluster: str) -> Threshold:
    name = CLASSES[label]
    if not len(inner):
        return Threshold(label, None, f"{name}: no inner slide has a labelled patch, so no precision can be proven; {MORE_SLIDES}")
    if inner.label.nunique() == 1:
        only = CLASSES[int(inner.label.iloc[0])]
        why = f"the inner slides hold {only} patches only ({len(inner)}), so no precision can be proven"
        return Threshold(label, None, f"{name}: {why}; {MORE_SLIDES}, or change seed")
    side = inner[predicted_class(inner.prob) == label].sort_values("prob", ascending=label == 0, kind="stable")
    if not len(side):
        return Threshold(label, None, f"{name}: no inner patch is called {name}, so no precision can be proven; {MORE_SLIDES}")
    probs = side.prob.to_numpy()
    ends = np.append(np.flatnonzero(np.diff(probs)), len(probs) - 1)
    right = (side.label == label).to_numpy(dtype=bool)
    shares = nested_shares(right, side.wsi).at(ends)
    bounds = lower_bound(shares, level)
    proven = np.flatnonzero(bounds >= precision)
    place = proven[-1] if len(proven) else np.argmax(bounds)
    threshold = Threshold(
        label,
        float(probs[ends[place]]),
        "",
        float(bounds[place]),
        int(shares.right[place]),
        int(shares.n[place]),
        int(side.wsi.iloc[: ends[place] + 1].nunique()) or None,
    )
    if len(proven):
        return replace(threshold, reason=_proven(threshold, precision, cluster))
    return replace(threshold, prob=None, reason=_unproven(threshold, precision, cluster))


def _proven(threshold: Threshold, precision: float, cluster: str) -> str:
    beyond = "more" if threshold.label else "less"
    bound = f"bound {rounded_down(threshold.bound):g}; {_counts(threshold, cluster)}"
    return f"{CLASSES[threshold.label]}: a precision of {precision:g} is proven at prob {threshold.prob:.4g} or {beyond} ({bound})"


def _unproven(threshold: Threshold, precision: float, cluster: str) -> str:
    bound = rounded_down(threshold.bound)
    cure = f"set pseudo.precision to {bound:g} or less, {MORE_SLIDES}" if bound > 0.5 else MORE_SLIDES
    where = f"the best bound is {bound:g}, at prob {threshold.prob:.4g} ({_counts(threshold, cluster)})"
    return f"{CLASSES[threshold.label]}: no threshold proves a precision of {precision:g}; {where}; {cure}"


def _counts(threshold: Threshold, cluster: str) -> str:
    where = (
        f" on {threshold.slides} inner {cluster}{'' if threshold.slides == 1 else 's'}" if threshold.slides else ", slides unknown"
    )
    return f"{threshold.right} of {threshold.n} right{where}"


def rounded_down(bound: float) -> float:
    """To three decimals, rounded down, so that the printed bound is itself proven."""
    return float(np.floor(bound * 1000) / 1000)


BY_RANK = "or choose by rank (pseudo.precision=null pseudo.top_share=0.25)"
OTHER_WAYS = f"raise cv.inner_share, import more slides, {BY_RANK}"
CROSS_FITTED_WAYS = f"label more patches or slides, {BY_RANK}"
"""Where folds cross-fit, all training slides are inner slides, whatever cv.inner_share is."""


@dataclass(frozen=True)
class Evidence:
    """Inner patches of one class in one fold, their slides, and the highest precision they can prove: that of no wrong call."""

    label: int
    n: int
    clusters: int
    bound: float


def evidence(folds: Folds, labels: np.ndarray, level: float) -> list[Evidence]:
    """One entry per fold and class, from the labels [N] of the folds' rows; stain clusters count where slides are unknown."""
    entries = []
    for k in range(folds.n_folds):
        for label in (1, 0):
            rows = folds.inner_mask(k) & (labels == label)
            n, clusters = int(rows.sum()), folds.frame.group[rows].nunique()
            entries.append(Evidence(label, n, clusters, faultless_bound(n, clusters, level)))
    return entries


def provable_text(options: Pseudo, dataset: Dataset, folds: Folds) -> str | None:
    """One line: whether the inner slides can prove `pseudo.precision`, and what to change if not; None where no precision is set."""
    if options.precision is None:
        return None
    labels = labelled_rows(dataset.patches).label.to_numpy(np.int64)
    entries = evidence(folds, labels, options.precision_level)
    short = {label: [e for e in entries if e.label == label and e.bound < options.precision] for label in (1, 0)}
    parts = [_shortage(few, options, folds.n_folds) for few in short.values() if few]
    target = f"pseudo.precision {options.precision:g} (confidence level {options.precision_level:g})"
    if not parts:
        return f"{target}: the inner slides of every fold can prove it, if enough calls are right"
    most = rounded_down(min(max(e.bound for e in entries if e.label == label) for label in (1, 0)))
    lower = f"set pseudo.precision={most:g} or less, " if most > 0.5 else ""
    ways = CROSS_FITTED_WAYS if folds.cross_fitted else OTHER_WAYS
    return f"{target} cannot be proven for {'; nor for '.join(parts)}. No such patch is added; {lower}{ways}"


def _shortage(entries: list[Evidence], options: Pseudo, n_folds: int) -> str:
    best = max(entries, key=lambda entry: entry.bound)
    needed = faultless_patches(options.precision, best.clusters, options.precision_level)
    counts = f"{_range([e.n for e in entries])} inner patches on {_range([e.clusters for e in entries])} slides"
    wanted = f"{needed:,} on {best.clusters} are needed" if needed else "one slide proves nothing"
    where = "any fold" if len(entries) == n_folds else f"{len(entries)} of {n_folds} folds"
    return f"{CLASSES[entries[0].label]} in {where}: {counts}, all of them right, prove {rounded_down(best.bound):g} at most ({wanted})"


def _range(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
