"""The pool: patches that a unit may learn from without a label, none of which belongs with patches that it is judged by."""

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, labelled_rows

SOURCES = ("test", "unlabelled", "hidden")


def pool_rows(dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    """The unit's pool as rows of `dataset.patches`, in their order, every `label` NA: truth does not travel.

    It holds the test split, patches without a label, and labelled ones that are neither trained on nor kept (`label_budget`
    hides those). Kept patches, scored or inner, are not in it, nor patches of their groups, nor exact copies of them.
    """
    marks = _marks(dataset, folds, unit)
    rows = dataset.patches[marks.source.notna() & marks.barred.isna()]
    return rows.assign(label=pd.array([pd.NA] * len(rows), dtype="Int8")).reset_index(drop=True)


def transductive(dataset: Dataset, folds: Folds, ids: pd.Series, learned: bool) -> dict[str, bool | float]:
    """`in_pool`, the share of scored patches `ids` that at least one fold's pool holds, and `transductive`, whether there are any; nothing is
    where the networks have not `learned` from their pools. Never so out of fold: what a fold scores is not in its pool."""
    share = float(ids.isin(pool_ids(dataset, folds)).mean()) if learned and len(ids) else 0.0
    return {"transductive": share > 0, "in_pool": share}


def pool_ids(dataset: Dataset, folds: Folds) -> set[str]:
    """The patches in the pool of at least one fold."""
    return set().union(*(pool_rows(dataset, folds, fold_unit(folds, k)).id for k in range(folds.n_folds)))


def pool_facts(dataset: Dataset, folds: Folds, unit: Unit) -> dict[str, int]:
    """Counts of the unit's pool: `patches`; by source `test`, `unlabelled`, `hidden`; `on_training_slides` (slides that also
    carry training labels: what is said of them is transductive); `without_slide`; and, not in it, `left_out_slides` and
    `left_out_copies` (the rest) of scored or inner patches."""
    marks = _marks(dataset, folds, unit)
    slides, candidate = dataset.patches.wsi, marks.source.notna()
    inside = candidate & marks.barred.isna()
    trained = set(folds.frame.wsi[unit.train].dropna())
    return {
        "patches": int(inside.sum()),
        **{source: int((inside & (marks.source == source)).sum()) for source in SOURCES},
        "on_training_slides": int((inside & slides.isin(trained)).sum()),
        "without_slide": int((inside & slides.isna()).sum()),
        "left_out_slides": int((candidate & (marks.barred == "slide")).sum()),
        "left_out_copies": int((candidate & (marks.barred == "copy")).sum()),
    }


def _marks(dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    """For each patch `[N]`: `source`, by which it could be in the pool, and `barred`, what forbids it ("slide", "copy"); else NA."""
    patches, frame = dataset.patches, folds.frame
    rows = labelled_rows(patches).row.to_numpy()
    # A refit scores nothing, and yet learns nothing of a valid split that no fold learns from.
    kept = unit.score | unit.inner | ~folds.learnable
    source = np.where(patches.split == "test", "test", "unlabelled").astype(object)
    source[rows] = np.where(unit.train | kept, None, "hidden")
    # Only where folds keep slides whole is a slide a group; random folds tear them, to show the leak.
    group = patches.wsi.to_numpy(object) if folds.grouping == "slides" else np.full(len(patches), None, object)
    group[rows] = frame.group
    of_slide = pd.Series(group).isin(set(frame.group[kept])).to_numpy()
    is_copy = patches.pixel_hash.isin(set(patches.pixel_hash.iloc[rows[kept]])).to_numpy()
    barred = np.where(of_slide, "slide", np.where(is_copy, "copy", None))
    return pd.DataFrame({"source": source, "barred": barred}, index=patches.index)
