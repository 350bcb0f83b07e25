"""The pool of a unit: patches that it may train on without their labels. Patches related to its scored or inner patches are excluded."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, labelled_rows
from pcam_ssl.tables import among

SOURCES = ("test", "unlabelled", "hidden")


def pool_rows(dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    """The unit's pool as rows of `dataset.patches`, in their order, with labels masked (NA).

    It holds the test split, patches without a label, and labelled patches whose label is hidden (`label_budget`, `slide_budget`). Scored and inner
    patches are not in it, nor patches of their groups, nor exact copies of them.
    """
    rows = dataset.patches[_marks(dataset, folds, unit).inside]
    hidden = pd.arrays.IntegerArray(np.ones(len(rows), np.int8), np.ones(len(rows), bool))
    return rows.assign(label=hidden).reset_index(drop=True)


def pool_sources(dataset: Dataset, folds: Folds, unit: Unit) -> np.ndarray:
    """Why each row of `pool_rows` is in the pool: one of `SOURCES`, object `[P]`."""
    marks = _marks(dataset, folds, unit)
    return marks.source[marks.inside]


def transductive(dataset: Dataset, folds: Folds, ids: pd.Series, learned: bool) -> dict[str, bool | float]:
    """`in_pool`, the share of scored patches `ids` in the pool of at least one fold, and `transductive`, whether that share is above 0.

    The share is 0 where the networks have not `learned` from their pools. Out-of-fold scores are never transductive: the patches
    that a fold scores are not in its pool.
    """
    share = float(among(ids, pool_ids(dataset, folds)).mean()) if learned and len(ids) else 0.0
    return {"transductive": share > 0, "in_pool": share}


def pool_ids(dataset: Dataset, folds: Folds) -> set[str]:
    """Ids of the patches in the pool of at least one fold."""
    return set().union(*(pool_rows(dataset, folds, fold_unit(folds, k)).id for k in range(folds.n_folds)))


def pool_facts(dataset: Dataset, folds: Folds, unit: Unit) -> dict[str, int]:
    """Counts of the unit's pool: `patches`; by source `test`, `unlabelled`, `hidden`; `on_training_slides` (patches of slides with
    training labels, whose scores are transductive); `without_slide`; and patches excluded from it, `left_out_slides` (of a scored or
    inner slide) and `left_out_copies` (other exact copies of scored or inner patches)."""
    marks, slides = _marks(dataset, folds, unit), dataset.patches.wsi
    trained = set(folds.frame.wsi[unit.train].dropna())
    return {
        "patches": int(marks.inside.sum()),
        **{source: int((marks.inside & (marks.source == source)).sum()) for source in SOURCES},
        "on_training_slides": int((marks.inside & slides.isin(trained)).sum()),
        "without_slide": int((marks.inside & slides.isna()).sum()),
        "left_out_slides": int((marks.candidate & marks.of_slide).sum()),
        "left_out_copies": int((marks.candidate & marks.is_copy & ~marks.of_slide).sum()),
    }


@dataclass(frozen=True)
class _Marks:
    """Of each patch `[N]`: why it is a candidate for the pool (None where it is none), and whether it is excluded, as a patch of a held-out
    group or as a copy of a held-out patch."""

    source: np.ndarray
    of_slide: np.ndarray
    is_copy: np.ndarray

    @property
    def candidate(self) -> np.ndarray:
        return self.source != None  # noqa: E711

    @property
    def inside(self) -> np.ndarray:
        return self.candidate & ~self.of_slide & ~self.is_copy


def _marks(dataset: Dataset, folds: Folds, unit: Unit) -> _Marks:
    patches, frame = dataset.patches, folds.frame
    rows = labelled_rows(patches).row.to_numpy()
    # A refit scores nothing, but it must not train on a valid split that no fold trains on.
    kept = unit.held_out | ~folds.learnable
    source = np.where(patches.split == "test", "test", "unlabelled").astype(object)
    source[rows] = np.where(unit.train | kept, None, "hidden")
    # A slide is a group only where folds keep slides whole. Random folds split slides, to demonstrate leakage.
    group = patches.wsi.to_numpy(object) if folds.grouping == "slides" else np.full(len(patches), None, object)
    group[rows] = frame.group
    # By numbers: pandas compares strings with a set one at a time.
    groups, pixels = pd.factorize(group)[0], pd.factorize(patches.pixel_hash)[0]
    return _Marks(source, np.isin(groups, groups[rows[kept]]), np.isin(pixels, pixels[rows[kept]]))
