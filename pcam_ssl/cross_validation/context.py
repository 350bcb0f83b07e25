"""RunContext: what all folds of a run share."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd

from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.folds import Folds, labelled_rows, score_groups
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.calibration import Calibrator, fit_calibrator
from pcam_ssl.models.inference import PLAIN, TestViews, predict_logits, test_views
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

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The labelled patches, one for each row of `folds.frame`."""
        return labelled_rows(self.dataset.patches)

    @property
    def pixels(self) -> Pixels:
        return Pixels(self.dataset.path / PIXELS)

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
            pixels=self.pixels,
            views=views,
            batch_size=self.recipe.predict.batch_size,
            precision=self.precision,
            world=self.world,
            workers=self.workers,
        )


def calibrator_of(context: RunContext, inner: pd.DataFrame) -> Calibrator:
    """A temperature fitted on Predictions of the inner slides. Patches are clustered by slide, or by stain where slides are unknown."""
    return fit_calibrator(inner.logit, inner.label.to_numpy(np.int64), score_groups(context.folds, inner)[0])


def calibrate(context: RunContext, inner: pd.DataFrame) -> Calibrator:
    """A temperature fitted on Predictions of the inner slides; prints the reason where none can be fitted."""
    calibrator = calibrator_of(context, inner)
    if calibrator.reason and context.world.is_main:
        say(calibrator.reason)
    return calibrator
