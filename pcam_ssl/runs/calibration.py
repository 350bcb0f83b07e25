"""The calibration of a run: of each fold's network, and of the mean over folds, from inner slides."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.folds import stored_groups
from pcam_ssl.evaluation.calibration import Calibrator, fit_calibrator
from pcam_ssl.models.artefact import FORMAT
from pcam_ssl.records import read_mean_calibration, read_model
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import mean_over, predictions, read_predictions

INNER, INNER_KNN = "inner", "inner-knn"
"""Tables of a fold's inner slides: what its head says of them, and what its neighbours say."""


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
