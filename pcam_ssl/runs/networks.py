"""The trained networks of a run, and their calibration: of each fold's network, and of the mean over folds, from inner slides."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset, find_dataset
from pcam_ssl.data.folds import REFIT, Folds, read_folds, stored_groups
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator, fit_calibrator
from pcam_ssl.models.artefact import FORMAT, WEIGHTS
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.records import read_mean_calibration, read_model
from pcam_ssl.runs.contents import predictions_by_id
from pcam_ssl.runs.run import Run, run_in_use
from pcam_ssl.tables import mean_over, predictions, read_predictions
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class Networks:
    """A run with at least one finished network, and what its networks were trained and scored on."""

    run: Run
    info: dict[str, Any]
    recipe: Recipe
    dataset: Dataset
    folds: Folds
    finished: tuple[int, ...]
    """Folds whose network is there."""
    refit: bool
    """Whether the network of all labelled slides is there."""

    def fold(self, k: int, option: str = "--fold") -> Path:
        """The folder of a fold's network. Raises UserError, naming the `option` that asked for it, where it is not there."""
        if k not in self.finished:
            has = ", ".join(map(str, self.finished)) or "none"
            raise UserError(f"{option} {k}: {self.run.path} has no such finished fold; it has {has}")
        return self.run.fold(k)

    def one(self, fold: int | None, what: str) -> Path:
        """The folder of one network: that of `fold`, else the refit on all labelled slides, else the first finished fold, and that is said."""
        if fold is not None:
            return self.fold(fold)
        if self.refit:
            return self.run.path / REFIT
        chosen = self.run.fold(self.finished[0])
        say(f"{what}: the network of {chosen.name}, since the run has none on all slides; --fold K takes another")
        return chosen

    def require_head(self, what: str) -> None:
        """Raises UserError where the run's heads never learned, so that `what` would show an untrained classifier."""
        if self.recipe.scored_by == "knn":
            raise UserError(
                f"{what}: {self.run.path} trained no classifier (method.classify=false), kNN scores its patches; `pcam-ssl search` and"
                " `pcam-ssl export --parquet` show its embedding, method.classify=true trains a classifier too"
            )

    def scored(self) -> pd.DataFrame:
        """Predictions by id, by networks that never learned the label: out of fold, else the mean over folds of the test split."""
        return predictions_by_id(self.run)


def open_networks(path: Path | str, data: Path | str | None = None, round: int | None = None) -> Networks:
    """The networks of the run at `path`; of its best pseudo-label round, or round `round`, where it has rounds.

    `data` says where its dataset lies, where that has moved. Raises UserError where there is no run or round, or one without
    networks, or its dataset is gone or another one.
    """
    run = run_in_use(path, round)
    info = run.info()
    # First of all, since a blend has no network, and its message names the runs that have.
    recipe = run.recipe
    units = sorted(int(each.parent.name[5:]) for each in run.path.glob("fold-*/fold.json") if each.parent.name[5:].isdigit())
    finished = tuple(k for k in units if _has_weights(run.fold(k)))
    refit = run.unit_done(REFIT) and _has_weights(run.path / REFIT)
    if not finished and not refit:
        if units:
            raise UserError(
                f"{run.path}: its networks (fold-K/{WEIGHTS}) are gone; copy them back, or train again into another --out"
            )
        raise UserError(f"{run.path}: no network is finished yet; run its command again, it goes on where it stopped")
    dataset = find_dataset(run.path, info["dataset"], info["dataset_digest"], data)
    return Networks(run, info, recipe, dataset, read_folds(run.paths.folds, dataset.patches), finished, refit)


def _has_weights(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()


INNER, INNER_KNN, INNER_GRAPH, INNER_SPATIAL = "inner", "inner-knn", "inner-graph", "inner-spatial"
"""Tables of a fold's inner slides: what its head says of them, what its neighbours say, what label propagation says, and the first smoothed in space."""


def own_calibrator(folder: Path) -> Calibrator:
    """That of the network in a unit's folder."""
    return Calibrator.from_dict(read_model(folder, FORMAT)["calibration"])


def mean_calibrator(run: Run, folds: Iterable[int], name: str = INNER) -> Calibrator:
    """The temperature of the mean logit of `folds`, from the inner slides of them all, each scored by its own fold's network.

    A finished run has it in run.json; that of some of its folds is fitted here from their tables `name`.
    """
    folds = list(folds)
    stored = read_mean_calibration(run.path)
    if stored is not None and name in stored["tables"] and stored["folds"] == folds:
        return Calibrator.from_dict(stored["tables"][name])
    return fit_mean_calibrator(run, folds, name)


def fit_mean_calibrator(run: Run, folds: Iterable[int], name: str = INNER) -> Calibrator:
    """The same from the folds' tables `name`, whatever run.json says.

    T is fitted on logits of single networks. Their mean is less noisy, so T is rather too high than too low for it.
    """
    inner = pd.concat([read_predictions(run.fold(k) / f"{name}.parquet") for k in folds], ignore_index=True)
    return fit_calibrator(inner.logit, inner.label.to_numpy(np.int64), stored_groups(run.paths.folds, inner))


def mean_of_folds(parts: list[pd.DataFrame], calibrator: Calibrator | None = None) -> pd.DataFrame:
    """Predictions of fold -1 from the folds' Predictions of the same ids in the same order: logits are averaged.

    The prob is that of the mean logit by `calibrator` (`calibration.mean_calibrator`); None for logits that are calibrated already.
    """
    first = parts[0]
    logits, stds = (mean_over([part[name] for part in parts]) for name in ("logit", "view_std"))
    return predictions(first.id, first.label, first.wsi, -1, logits, stds, (calibrator or Calibrator()).prob(logits))
