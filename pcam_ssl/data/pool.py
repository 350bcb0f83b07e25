"""The pool: what a unit may learn from without a label, and no patch that could tell it about those it is judged by."""

import numpy as np
import pandas as pd
from torch.utils.data import Dataset as Stream

from pcam_ssl.cross_validation.context import Setting, Unit, fold_unit, refit_unit
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.data.unlabelled import UnlabelledStream
from pcam_ssl.data.views import Views
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.recipe_methods import CONSISTENCY
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.terminal import say

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


def describe_pool(facts: dict[str, int]) -> str:
    """The counts of `pool_facts` in words."""
    sources = ", ".join(f"{facts[source]:,} {source}" for source in SOURCES if facts[source])
    notes = [f"{facts['patches']:,} patches without labels ({sources})"]
    if n := facts["on_training_slides"]:
        notes.append(f"{n:,} of them on slides that also have training labels, so what is learnt there is transductive")
    if n := facts["without_slide"]:
        notes.append(f"{n:,} of unknown slide")
    if n := facts["left_out_slides"] + facts["left_out_copies"]:
        notes.append(f"{n:,} more left out: on slides that are scored or inner, or copies of such patches")
    return "; ".join(notes)


def check_pools(recipe: Recipe, dataset: Dataset, folds: Folds) -> None:
    """Raises UserError where a consistency method would find an empty pool in any unit of the run."""
    units = [fold_unit(folds, k) for k in range(folds.n_folds)]
    for unit in [*units, refit_unit(folds)] if recipe.cv.refit is True else units:
        _pool(recipe, dataset, folds, unit)


def with_pool(setting: Setting, unit: Unit, stream: Stream, seed: int, steps_per_epoch: int) -> Stream:
    """The labelled stream, joined by the unit's pool where the method learns from it; the leader says what is in it."""
    recipe, world = setting.recipe, setting.world
    method = recipe.method
    if not isinstance(method, CONSISTENCY):
        return stream
    rows = _pool(recipe, setting.dataset, setting.folds, unit)
    if world.leads:
        say(f"{unit.name}: {describe_pool(pool_facts(setting.dataset, setting.folds, unit))}")
    return UnlabelledStream(
        stream,
        setting.pixels,
        rows.row.to_numpy(),
        recipe.train.batch_size * method.ratio,
        weak=Views(method.weak, recipe.views.strength, recipe.views.transform),
        strong=Views(method.strong, recipe.views.strength, recipe.views.transform),
        ramp_steps=method.ramp_epochs * steps_per_epoch,
        seed=seed,
        rank=world.rank,
        size=world.size,
    )


def _pool(recipe: Recipe, dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    rows = pool_rows(dataset, folds, unit)
    if rows.empty:
        raise UserError(
            f"method {recipe.method.name} learns from unlabelled patches and {unit.name.replace('-', ' ')} has none:"
            " set data.label_budget, import a test split, or method.name=supervised"
        )
    return rows


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
