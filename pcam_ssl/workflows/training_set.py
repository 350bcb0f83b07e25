"""What a unit trains on: its labelled patches, then the pseudo-labelled ones of its round, as rows, labels, slides and weights."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcam_ssl.data.plans import ClassesBySlide, Mixed, Shuffled
from pcam_ssl.data.streams import PseudoPart, TrainStream
from pcam_ssl.data.views import Views
from pcam_ssl.recipe import Recipe
from pcam_ssl.workflows.setting import Setting, Unit


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


def training_set(setting: Setting, unit: Unit) -> TrainingSet:
    """The training set of a unit."""
    labelled = setting.rows[unit.train]
    codes, names = pd.factorize(setting.folds.frame.group)
    rows, labels, slides = labelled.row.to_numpy(), labelled.label.to_numpy(np.int64), codes[unit.train]
    if unit.pseudo is None or not len(unit.pseudo):
        return TrainingSet(rows, labels, slides, np.ones(len(rows)), len(rows))
    more = unit.pseudo.merge(setting.dataset.patches[["id", "row", "wsi"]], on="id", how="left", validate="one_to_one")
    known = names.get_indexer(pd.Index(more.wsi.astype("str"))) if setting.folds.grouping == "slides" else np.full(len(more), -1)
    # A patch whose slide is not among the folds' slides stands for a slide of its own.
    own = len(names) + np.arange(len(more))
    return TrainingSet(
        np.concatenate([rows, more.row.to_numpy()]),
        np.concatenate([labels, more.label.to_numpy(np.float64)]),
        np.concatenate([slides, np.where(known < 0, own, known)]),
        np.concatenate([np.ones(len(rows)), more.weight.to_numpy(np.float64)]),
        len(rows),
    )


def train_stream(setting: Setting, unit: Unit, patches: TrainingSet, seed: int) -> TrainStream:
    """The batches of a unit."""
    recipe, world = setting.recipe, setting.world
    pseudo = None
    if len(patches) > patches.n_labelled:
        policy = recipe.views.policy if recipe.pseudo.noise == "same" else recipe.pseudo.noise
        ramp_steps = round(recipe.pseudo.ramp_epochs * steps_per_epoch(recipe, len(patches), patches.n_labelled))
        views = Views(policy, recipe.views.strength, recipe.views.transform)
        pseudo = PseudoPart(patches.n_labelled, patches.weights.astype(np.float32), views, ramp_steps)
    return TrainStream(
        setting.pixels,
        patches.rows,
        patches.labels,
        batch_plan(recipe, patches.labels, patches.slides, seed, patches.n_labelled),
        Views(recipe.views.policy, recipe.views.strength, recipe.views.transform),
        seed,
        world.rank,
        world.size,
        patches.slides,
        pseudo,
    )


def batch_plan(recipe: Recipe, labels: np.ndarray, slides: np.ndarray, seed: int, n_labelled: int | None = None):
    """Which patches stand in a batch: all equally often, in `pseudo.mix`'s ratio, or for metric learning both classes from many slides."""
    if recipe.method.name == "metric":
        return ClassesBySlide(
            (labels > 0.5).astype(np.int64), slides, recipe.train.batch_size, seed, paired=recipe.method.slide_aware
        )
    if recipe.pseudo.mix != "all" and n_labelled is not None and n_labelled < len(labels):
        return Mixed(n_labelled, len(labels), recipe.train.batch_size, recipe.pseudo.mix, seed)
    return Shuffled(len(labels), recipe.train.batch_size, seed)


def steps_per_epoch(recipe: Recipe, n: int, n_labelled: int | None = None) -> int:
    """Batches of an epoch: each of `n` training patches about once, or `train.samples_per_epoch`; in a set mix, each label about once."""
    if recipe.pseudo.mix != "all" and n_labelled is not None and n_labelled < n and recipe.method.name != "metric":
        n = round(n_labelled / (1 - recipe.pseudo.mix))
    seen = min(n, recipe.train.samples_per_epoch or n)
    return max(1, round(seen / recipe.train.batch_size))
