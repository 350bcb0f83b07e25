"""What the units of a run share, and what a unit is: a fold, or the refit on all labelled slides."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.models.inference import PLAIN, TestViews, predict_logits
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import REFIT, Run


def test_views(recipe: Recipe) -> TestViews:
    """The views that a recipe scores patches under."""
    options, views = recipe.predict, recipe.views
    return TestViews(options.d4, options.random_views, views.policy, views.strength, options.mean, recipe.seed, views.transform)


@dataclass(frozen=True)
class Setting:
    """What all folds of a run share."""

    recipe: Recipe
    dataset: Dataset
    folds: Folds
    run: Run
    world: World
    precision: Precision
    workers: int
    round: int = 0

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The patches that folds are made of, one for each row of `folds.frame`."""
        return labelled_rows(self.dataset.patches)

    @property
    def pixels(self) -> Pixels:
        return Pixels(self.dataset.path / PIXELS)

    @property
    def test_views(self) -> TestViews:
        if self.recipe.scored_by == "knn":
            return PLAIN  # what an embedding is of
        return test_views(self.recipe)

    def scorer(self, views: TestViews):
        """`predict_logits` with everything but network, rows and ids filled in."""
        return partial(
            predict_logits,
            pixels=self.pixels,
            views=views,
            batch_size=self.recipe.predict.batch_size,
            precision=self.precision,
            world=self.world,
            workers=self.workers,
        )


@dataclass(frozen=True)
class Unit:
    """One network to train. The masks `[N]` are over the rows of the folds: what trains, what serves choices, what is scored."""

    name: str
    number: int
    train: np.ndarray
    inner: np.ndarray
    score: np.ndarray
    round: int = 0
    pseudo: pd.DataFrame | None = None
    """Pseudo-labelled patches that train it too: `id`, `label`, `weight`."""
    test: bool = True
    """Whether it predicts the test split."""

    def folder(self, run: Run) -> Path:
        return run.path / self.name


def fold_unit(folds: Folds, k: int) -> Unit:
    """Fold `k`."""
    return Unit(f"fold-{k}", k, folds.train_mask(k), folds.inner_mask(k), folds.score_mask(k))


def refit_unit(folds: Folds) -> Unit:
    """All visible labels that some fold learns from, but the inner slides of fold 0, which calibrate it; it scores nothing.

    Under the official scheme the labels of the valid split are none of its business, nor do they count against the budget.
    """
    train = folds.learnable & folds.frame["visible"].to_numpy() & ~folds.frame["inner_0"].to_numpy()
    return Unit(REFIT, folds.n_folds, train, folds.inner_mask(0), np.zeros(len(train), bool))
