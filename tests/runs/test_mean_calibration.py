"""The mean of folds is calibrated on the inner slides of all of them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from pcam_ssl.cross_validation.context import calibrator_of
from pcam_ssl.data.folds import Folds
from pcam_ssl.evaluation.calibration import Calibrator, fit_temperature
from pcam_ssl.files import read_json
from pcam_ssl.runs.networks import mean_calibrator
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table


def inner_of(run, folds) -> pd.DataFrame:
    return pd.concat([read_table(run.fold(k) / "inner.parquet")[0] for k in folds])


@pytest.mark.parametrize("known", [True, False])
def test_slides_are_the_count_and_stain_clusters_where_they_are_not_known(finished, known):
    """Six patches of two slides in three clusters."""
    inner = read_table(finished.fold(0) / "inner.parquet")[0].head(6)
    inner["wsi"] = pd.array(["a", "a", "a", "b", "b", "b"] if known else [None] * 6, dtype="str")
    inner["label"] = pd.array([0, 1, 0, 1, 0, 1], dtype="Int8")
    frame = pd.DataFrame({"id": inner.id, "group": ["x", "x", "y", "y", "z", "z"]})
    context = SimpleNamespace(folds=Folds(frame, "slides" if known else "stain clusters"))
    assert calibrator_of(context, inner).n_slides == (2 if known else 3)


@pytest.mark.parametrize("folds", [(0, 1), (1,)])
def test_it_is_fitted_on_every_fold_that_is_meant_and_slides_count_once(finished, folds):
    inner = inner_of(finished, folds)
    expected = fit_temperature(inner.logit, inner.label.to_numpy(np.int64), inner.wsi.nunique())
    assert mean_calibrator(finished, folds).temperature == pytest.approx(expected)


def test_a_finished_run_keeps_it_and_its_test_table_has_it(finished):
    kept = finished.info()["mean_calibration"]
    assert kept["folds"] == [0, 1]
    test = read_table(finished.path / "test.parquet")[0]
    mean = test[test.fold == -1]
    np.testing.assert_allclose(mean.prob, Calibrator.from_dict(kept["tables"]["inner"]).prob(mean.logit))
    assert kept["tables"]["inner"]["temperature"] != 1
    for k in (0, 1):
        own = Calibrator.from_dict(read_json(finished.fold(k) / "fold.json")["calibration"])
        rows = test[test.fold == k]
        np.testing.assert_allclose(rows.prob, expit(rows.logit / own.temperature))


def test_a_run_that_is_gathered_again_fits_it_anew(finished, train, tmp_path):
    copy = Run(shutil.copytree(finished.path, tmp_path / "copy"))
    kept = copy.info()["mean_calibration"]
    copy.update(mean_calibration={**kept, "tables": {"inner": {**kept["tables"]["inner"], "temperature": 9.0}}})
    copy.paths.scores.unlink()
    train(copy.path, "predict.d4=true")
    assert copy.info()["mean_calibration"] == kept
