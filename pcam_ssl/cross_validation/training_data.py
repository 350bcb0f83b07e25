"""Training data of a unit: labelled patches, pseudo-labelled patches of its round, and its unlabelled pool, as batches."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch.utils.data import Dataset as Stream

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.data.batches import PseudoPart, TrainStream, UnlabelledStream
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, refit_unit
from pcam_ssl.data.pixels import Inputs
from pcam_ssl.data.plans import (
    CLASSES,
    ClassesBySlide,
    Mixed,
    MixedClassesBySlide,
    Shuffled,
    check_classes,
)
from pcam_ssl.data.pool import SOURCES, pool_facts, pool_rows
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class TrainingSet:
    """Arrays `[n]`, labelled patches first: `rows` into the pixels, `labels` (pseudo-labels may lie between 0 and 1), `slides` as codes."""

    rows: np.ndarray
    labels: np.ndarray
    slides: np.ndarray
    weights: np.ndarray
    n_labelled: int

    def __len__(self) -> int:
        return len(self.rows)


def training_set(context: RunContext, unit: Unit) -> TrainingSet:
    """Labelled patches of the unit with weight 1, then its pseudo-labelled patches with theirs."""
    labelled = context.rows[unit.train]
    codes, names = pd.factorize(context.folds.frame.group)
    rows, labels, slides = labelled.row.to_numpy(), labelled.label.to_numpy(np.int64), codes[unit.train]
    if unit.pseudo is None or not len(unit.pseudo):
        return TrainingSet(rows, labels, slides, np.ones(len(rows)), len(rows))
    pseudo = unit.pseudo.merge(context.dataset.patches[["id", "row", "wsi"]], on="id", how="left", validate="one_to_one")
    codes_of_pseudo = (
        names.get_indexer(pd.Index(pseudo.wsi.astype("str"))) if context.folds.grouping == "slides" else np.full(len(pseudo), -1)
    )
    # A patch whose slide is not among the folds' slides counts as a slide of its own.
    own = len(names) + np.arange(len(pseudo))
    return TrainingSet(
        np.concatenate([rows, pseudo.row.to_numpy()]),
        np.concatenate([labels, pseudo.label.to_numpy(np.float64)]),
        np.concatenate([slides, np.where(codes_of_pseudo < 0, own, codes_of_pseudo)]),
        np.concatenate([np.ones(len(rows)), pseudo.weight.to_numpy(np.float64)]),
        len(rows),
    )


def train_stream(context: RunContext, unit: Unit, patches: TrainingSet, seed: int, inputs: Inputs | None = None) -> TrainStream:
    """The batches of a unit's training set, drawn from `inputs`, else from those of the context."""
    recipe, world = context.recipe, context.world
    pseudo = None
    if len(patches) > patches.n_labelled:
        policy = recipe.views.policy if recipe.pseudo.noise == "same" else recipe.pseudo.noise
        ramp_steps = round(recipe.pseudo.ramp_epochs * steps_per_epoch(recipe, len(patches), patches.n_labelled))
        pseudo = PseudoPart(patches.n_labelled, patches.weights.astype(np.float32), context.views(policy), ramp_steps)
    return TrainStream(
        context.inputs if inputs is None else inputs,
        patches.rows,
        patches.labels,
        batch_plan(recipe, patches.labels, patches.slides, seed, patches.n_labelled),
        context.views(recipe.views.policy),
        seed,
        world.rank,
        world.size,
        patches.slides,
        pseudo,
    )


def batch_plan(recipe: Recipe, labels: np.ndarray, slides: np.ndarray, seed: int, n_labelled: int | None = None):
    """The plan of the batches: all patches equally often, or labels and pseudo-labels in a fixed ratio; for metric learning both classes from many slides."""
    size, n = recipe.train.batch_size, len(labels)
    share = None if n_labelled is None or n_labelled == n else pseudo_share(recipe, n_labelled, n)
    if recipe.method.name == "metric":
        classes, paired = (labels > 0.5).astype(np.int64), recipe.method.slide_aware
        if share is None:
            return ClassesBySlide(classes, slides, size, seed, paired)
        return MixedClassesBySlide(classes, slides, n_labelled, size, share, seed, paired)
    return Shuffled(n, size, seed) if share is None else Mixed(n_labelled, n, size, share, seed)


def pseudo_share(recipe: Recipe, n_labelled: int, n: int) -> float | None:
    """Share of a batch that is pseudo-labelled, None where labels and pseudo-labels are shuffled together.

    Methods that draw by class need a share. With `pseudo.mix: all` it is the pseudo-labelled share of the patches, but at most half:
    a pool much larger than the labels would leave few labels in a batch.
    """
    if recipe.pseudo.mix != "all":
        return recipe.pseudo.mix
    return min((n - n_labelled) / n, 0.5) if recipe.method.name == "metric" else None


def mix_words(plan) -> str | None:
    """How many labels and pseudo-labels a batch holds, in words; None where their ratio is not fixed."""
    if isinstance(plan, Mixed):
        return f"a batch holds {(~plan.places).sum()} labels and {plan.places.sum()} pseudo-labels"
    if not isinstance(plan, MixedClassesBySlide):
        return None
    counts = zip(CLASSES, plan.labelled.counts, plan.n_pseudo, strict=True)
    held = "; ".join(f"{name}: {labels} labels, {pseudo} pseudo-labels" for name, labels, pseudo in counts)
    few = [name for name, n in zip(CLASSES, plan.n_pseudo, strict=True) if n < plan.wanted]
    more = f" ({' and '.join(few)}: fewer pseudo-labels than the mix asks for, labels fill the rest)" if few else ""
    return f"a batch holds {held}{more}"


def check_batches(recipe: Recipe, labels: np.ndarray) -> None:
    """Raises UserError where labels `[n]` alone cannot fill a batch of a method that draws by class."""
    if recipe.method.name == "metric":
        check_classes(labels, recipe.train.batch_size)


def scarce_words(recipe: Recipe, labels: np.ndarray) -> str | None:
    """A sentence where a class of labels `[n]` is smaller than half a batch, so that its patches repeat within it; else None."""
    half = recipe.train.batch_size // 2
    few = {name: n for label, name in enumerate(CLASSES) if (n := int((labels == label).sum())) < half}
    if recipe.method.name != "metric" or not few:
        return None
    counts = " and ".join(f"{n} {name} patches" for name, n in few.items())
    return f"trains on {counts}; a batch takes {half} of each class, so some of them repeat within it"


def steps_per_epoch(recipe: Recipe, n: int, n_labelled: int | None = None) -> int:
    """Batches per epoch: each of `n` training patches about once, or `train.samples_per_epoch`; where the mix is fixed, each label about once."""
    if recipe.pseudo.mix != "all" and n_labelled is not None and n_labelled < n:
        n = round(n_labelled / (1 - recipe.pseudo.mix))
    seen = min(n, recipe.train.samples_per_epoch or n)
    return max(1, round(seen / recipe.train.batch_size))


def passes_per_step(recipe: Recipe) -> int:
    """Patch passes of a step: views of patches that are pushed forward, over all processes. A step of a consistency method also takes
    a weak and a strong view of each patch of the pool."""
    size, method = recipe.train.batch_size, recipe.method
    return size * (1 + 2 * method.ratio) if learns_from_pool(method) else size


def describe_pool(facts: dict[str, int]) -> str:
    """The counts of `pool_facts` in words."""
    sources = ", ".join(f"{facts[source]:,} {source}" for source in SOURCES if facts[source])
    notes = [f"{facts['patches']:,} patches without labels ({sources})"]
    if n := facts["on_training_slides"]:
        notes.append(f"{n:,} of them on slides that also have training labels (learning from them is transductive)")
    if n := facts["without_slide"]:
        notes.append(f"{n:,} of unknown slide")
    if n := facts["left_out_slides"] + facts["left_out_copies"]:
        notes.append(f"{n:,} more excluded: on scored or inner slides, or copies of such patches")
    return "; ".join(notes)


def check_pools(recipe: Recipe, dataset: Dataset, folds: Folds) -> None:
    """Raises UserError where the pool of any unit is empty; consistency methods need one."""
    units = [fold_unit(folds, k) for k in range(folds.n_folds)]
    for unit in [*units, refit_unit(folds)] if recipe.cv.refit is True else units:
        for each in (unit, *unit.parts):
            _pool(recipe, dataset, folds, each)


def with_pool(context: RunContext, unit: Unit, stream: TrainStream, seed: int, steps_per_epoch: int) -> Stream:
    """The labelled stream, joined with the unit's pool where the method learns from it. Rank 0 prints what the pool holds."""
    recipe, world = context.recipe, context.world
    method = recipe.method
    if not learns_from_pool(method):
        return stream
    rows = _pool(recipe, context.dataset, context.folds, unit)
    if world.is_main:
        say(f"{unit.name}: {describe_pool(pool_facts(context.dataset, context.folds, unit))}")
    return UnlabelledStream(
        stream,
        stream.pixels,
        rows.row.to_numpy(),
        recipe.train.batch_size * method.ratio,
        weak=context.views(method.weak),
        strong=context.views(method.strong) if hasattr(method, "strong") else None,
        n_weak=getattr(method, "views", 1),
        mixup_alpha=getattr(method, "mixup_alpha", None),
        ramp_steps=method.ramp_epochs * steps_per_epoch,
        seed=seed,
        rank=world.rank,
        size=world.size,
    )


def _pool(recipe: Recipe, dataset: Dataset, folds: Folds, unit: Unit) -> pd.DataFrame:
    rows = pool_rows(dataset, folds, unit)
    if rows.empty:
        raise UserError(
            f"method {recipe.method.name} learns from unlabelled patches and {unit.name.replace('-', ' ')} has none;"
            " set data.label_budget, import a test split, or set method.name=supervised"
        )
    return rows
