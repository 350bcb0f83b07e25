"""RunContext: what all folds of a run share."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.frozen import Frozen
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.folds import Folds, Unit, labelled_rows, score_groups
from pcam_ssl.data.pixels import Inputs, Pixels
from pcam_ssl.data.views import Views
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.calibration import Calibrator, fit_calibrator
from pcam_ssl.models.inference import PLAIN, TestViews, predict_logits, test_views
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class RunContext:
    """What all folds of a run share."""

    recipe: Recipe
    dataset: Dataset
    folds: Folds
    run: Run
    world: World
    precision: Precision
    workers: int
    round: int = 0
    frozen: Frozen | None = None
    """The frozen backbone that all units share, where the recipe trains on features."""

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The labelled patches, one for each row of `folds.frame`."""
        return labelled_rows(self.dataset.patches)

    @property
    def inputs(self) -> Inputs:
        """What networks are fed with: pixels, or cached features."""
        if self.frozen is not None and self.frozen.features is not None:
            return self.frozen.features
        return Pixels(self.dataset.path / PIXELS)

    @property
    def trains_on_cached(self) -> bool:
        """Whether training reads features that are computed once, so that a pass costs next to nothing."""
        return self.frozen is not None and (self.frozen.features is not None or self.recipe.optim.name == "lbfgs")

    def views(self, policy: str) -> Views | FixedViews:
        """The training views of a policy; fixed ones for a frozen backbone."""
        if self.frozen is not None:
            return self.frozen.views(self.recipe, policy)
        return Views(policy, self.recipe.views.strength, self.recipe.views.transform)

    @property
    def test_views(self) -> TestViews:
        if self.recipe.scored_by == "knn":
            # kNN compares embeddings of the plain view.
            return PLAIN
        return test_views(self.recipe)

    def scorer(self, views: TestViews):
        """`predict_logits` under `views`; network, rows and ids are left to the caller."""
        return partial(
            predict_logits,
            pixels=self.inputs,
            views=views,
            batch_size=self.recipe.predict.batch_size,
            precision=self.precision,
            world=self.world,
            workers=self.workers,
        )


@dataclass(frozen=True)
class Fitted:
    """The trained network of a unit, those of its inner networks, and what is to be told of the training in fold.json."""

    network: Network
    inner: list[tuple[Unit, Network]]
    """Units with their networks whose `inner` patches, together, are those of the unit: the unit itself, or where it cross-fits its parts."""
    facts: dict[str, Any]


def in_order(parts: list[Unit], arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays over the inner patches of several units, joined in the order of the rows."""
    order = np.argsort(np.concatenate([np.flatnonzero(part.inner) for part in parts]))
    return np.concatenate(arrays)[order]


def calibrator_of(context: RunContext, inner: pd.DataFrame) -> Calibrator:
    """A temperature fitted on Predictions of the inner slides. Patches are clustered by slide, or by stain where slides are unknown."""
    return fit_calibrator(inner.logit, inner.label.to_numpy(np.int64), score_groups(context.folds, inner)[0])


def calibrate(context: RunContext, inner: pd.DataFrame) -> Calibrator:
    """A temperature fitted on Predictions of the inner slides; prints the reason where none can be fitted."""
    calibrator = calibrator_of(context, inner)
    if calibrator.reason and context.world.is_main:
        say(calibrator.reason)
    return calibrator
