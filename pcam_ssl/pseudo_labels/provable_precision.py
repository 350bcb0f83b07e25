"""What the inner slides can prove of a precision, said before anything is trained."""

from dataclasses import dataclass

import numpy as np

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.evaluation.confidence import faultless_bound, faultless_patches
from pcam_ssl.pseudo_labels.thresholds import rounded_down
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.tables import CLASSES

OTHER_WAYS = "raise cv.inner_share, import more slides, or choose by rank (pseudo.precision=null pseudo.top_share=0.25)"


@dataclass(frozen=True)
class Evidence:
    """The inner patches of one class in one fold, the slides they are of, and the most that they can prove: all of them right."""

    label: int
    n: int
    clusters: int
    bound: float


def evidence(folds: Folds, labels: np.ndarray, level: float) -> list[Evidence]:
    """One entry a fold and class, from the labels [N] of the folds' rows; stain clusters count where slides are not known."""
    found = []
    for k in range(folds.n_folds):
        for label in (1, 0):
            rows = folds.inner_mask(k) & (labels == label)
            n, clusters = int(rows.sum()), folds.frame.group[rows].nunique()
            found.append(Evidence(label, n, clusters, faultless_bound(n, clusters, level)))
    return found


def provable_text(options: Pseudo, dataset: Dataset, folds: Folds) -> str | None:
    """One line: whether `pseudo.precision` can be proven at all, and what would change it; None where none is asked for."""
    if options.precision is None:
        return None
    labels = labelled_rows(dataset.patches).label.to_numpy(np.int64)
    found = evidence(folds, labels, options.precision_level)
    short = {label: [e for e in found if e.label == label and e.bound < options.precision] for label in (1, 0)}
    parts = [_shortage(entries, options, folds.n_folds) for entries in short.values() if entries]
    asked = f"pseudo.precision {options.precision:g} (sure to {options.precision_level:g})"
    if not parts:
        return f"{asked}: the inner slides of every fold can prove it, if so many calls are right"
    most = rounded_down(min(max(e.bound for e in found if e.label == label) for label in (1, 0)))
    lower = f"set pseudo.precision={most:g} or less, " if most > 0.5 else ""
    return f"{asked} cannot be proven for {'; nor for '.join(parts)}. There nothing is added; {lower}{OTHER_WAYS}"


def _shortage(entries: list[Evidence], options: Pseudo, n_folds: int) -> str:
    best = max(entries, key=lambda entry: entry.bound)
    needed = faultless_patches(options.precision, best.clusters, options.precision_level)
    counts = f"{_range([e.n for e in entries])} inner patches on {_range([e.clusters for e in entries])} slides"
    wanted = f"{needed:,} on {best.clusters} are needed" if needed else "one slide proves nothing"
    where = "any fold" if len(entries) == n_folds else f"{len(entries)} of {n_folds} folds"
    return f"{CLASSES[entries[0].label]} in {where}: {counts}, all of them right, prove {rounded_down(best.bound):g} at most ({wanted})"


def _range(values: list[int]) -> str:
    return f"{min(values)}" if min(values) == max(values) else f"{min(values)} to {max(values)}"
