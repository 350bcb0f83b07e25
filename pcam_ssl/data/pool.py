"""The pool of a unit: patches that it may train on without their labels. Patches related to its scored or inner patches are excluded."""

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
    marks = _marks(dataset, folds, unit)
    rows = dataset.patches[marks.source.notna() & marks.excluded.isna()]
    return rows.assign(label=pd.array([pd.NA] * len(rows), dtype="Int8")).reset_index(drop=True)


def pool_sources(dataset: Dataset, folds: Folds, unit: Unit) -> np.ndarray:
    """Why each row of `pool_rows` is in the pool: one of `SOURCES`, object `[P]`."""
    marks = _marks(dataset, folds, unit)
    return marks.source[marks.source.notna() & marks.excluded.isna()].to_numpy(object)


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
    marks = _marks(dataset, folds, unit)
    slides, candidate = dataset.patches.wsi, marks.source.notna()
    inside = candidate & marks.excluded.isna()
    trained = set(folds.frame.wsi[unit.train].dropna())
    return {
        "patches": int(inside.sum()),
        **{source: int((inside & (marks.source == source)).sum()) for source in SOURCES},
        "on_training_slides": int((inside & slides.isin(trained)).sum()),
        "without_slide": int((inside & slides.isna()).sum()),
        "left_out_slides": int((candidate & (marks.excluded == "slide")).sum()),
        "left_out_copies": int((candidate & (marks.excluded == "copy")).sum()),
    }


def _marks(dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    """For each patch `[N]`: `source`, why it is a candidate for the pool, and `excluded`, why it is excluded ("slide", "copy"); else NA."""
    patches, frame = dataset.patches, folds.frame
    rows = labelled_rows(patches).row.to_numpy()
    # A refit scores nothing, but it must not train on a valid split that no fold trains on.
    kept = unit.held_out | ~folds.learnable
    source = np.where(patches.split == "test", "test", "unlabelled").astype(object)
    source[rows] = np.where(unit.train | kept, None, "hidden")
    # A slide is a group only where folds keep slides whole. Random folds split slides, to demonstrate leakage.
    group = patches.wsi.to_numpy(object) if folds.grouping == "slides" else np.full(len(patches), None, object)
    group[rows] = frame.group
    of_slide = pd.Series(group).isin(set(frame.group[kept])).to_numpy()
    # By numbers: pandas compares Arrow strings with a set one at a time.
    pixels = pd.factorize(patches.pixel_hash)[0]
    is_copy = np.isin(pixels, pixels[rows[kept]])
    excluded = np.where(of_slide, "slide", np.where(is_copy, "copy", None))
    return pd.DataFrame({"source": source, "excluded": excluded}, index=patches.index)
