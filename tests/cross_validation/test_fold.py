"""Calibration and blend weight of a finished fold, recomputed from its tables."""

import numpy as np
import pytest

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.evaluation.calibration import fit_calibrator
from pcam_ssl.files import read_json
from pcam_ssl.neighbors.knn import blend_weight
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import calibrated_logits, read_table

FOLDS = (0, 1)


def calibrator_of(inner):
    """Fitted on Predictions of inner slides, whose slides are known."""
    return fit_calibrator(inner.logit, inner.label.to_numpy(np.int64), inner.wsi)


def inner_table(run, fold):
    return read_table(run.fold(fold) / "inner.parquet")[0]


@pytest.mark.parametrize("fold", FOLDS)
def test_the_temperature_is_fitted_on_the_test_time_views_of_inner_slides(finished, fold):
    inner = inner_table(finished, fold)
    temperature = read_json(finished.fold(fold) / "fold.json")["calibration"]["temperature"]
    assert temperature != 1
    assert temperature == pytest.approx(calibrator_of(inner).temperature, rel=1e-9)


@pytest.mark.parametrize("fold", FOLDS)
def test_inner_predictions_are_of_the_inner_slides_and_calibrated(finished, fold):
    inner, frame = inner_table(finished, fold), read_table(finished.paths.folds)[0]
    assert inner.id.tolist() == frame.id[frame[f"inner_{fold}"]].tolist()
    temperature = read_json(finished.fold(fold) / "fold.json")["calibration"]["temperature"]
    np.testing.assert_allclose(inner.prob, 1 / (1 + np.exp(-inner.logit / temperature)), rtol=1e-12)


@pytest.mark.parametrize("fold", FOLDS)
def test_the_plain_view_has_a_calibration_of_its_own(finished, fold):
    """Its probs are another temperature's: that of the plain view of the inner slides."""
    plain = read_table(finished.fold(fold) / "oof-plain.parquet")[0]
    temperatures = plain.logit / np.log(plain.prob / (1 - plain.prob))
    own = read_json(finished.fold(fold) / "fold.json")["calibration"]["temperature"]
    assert np.ptp(temperatures) < 1e-6
    assert abs(temperatures.mean() - own) > 1e-6


@pytest.fixture(scope="module", params=FOLDS)
def neighbours(request, trained_run):
    """What a fold's neighbours chose, and its inner tables of head and kNN."""
    folder = Run(trained_run).fold(request.param)
    head, knn = (read_table(folder / f"{name}.parquet")[0] for name in ("inner", "inner-knn"))
    return read_json(folder / "fold.json")["neighbours"], head, knn


def test_neighbours_have_a_temperature_of_their_own_inner_votes(neighbours):
    facts, head, knn = neighbours
    assert facts["calibration"]["temperature"] == pytest.approx(calibrator_of(knn).temperature, rel=1e-9)
    assert facts["calibration"]["temperature"] != pytest.approx(calibrator_of(head).temperature)
    np.testing.assert_allclose(knn.prob, 1 / (1 + np.exp(-knn.logit / facts["calibration"]["temperature"])), rtol=1e-12)


def test_head_and_neighbours_are_weighed_as_calibrated_on_inner_slides(neighbours):
    facts, head, knn = neighbours
    found = blend_weight(calibrated_logits(head.prob), calibrated_logits(knn.prob), head.label.to_numpy(np.int64))
    assert facts["blend"]["weight"] == pytest.approx(found.weight, abs=1e-3)
    assert facts["blend"]["nll"] == pytest.approx(found.nll, rel=1e-6)


def test_test_time_views_are_those_of_the_recipe(tiny_recipe):
    recipe = tiny_recipe(
        "seed=5", "predict.d4=false", "predict.random_views=3", "predict.mean=prob", "views.policy=strong", "views.strength=0.5"
    )
    views = RunContext(recipe, None, None, None, None, None, 0).test_views
    assert (views.seed, views.d4, views.random_views, views.mean) == (5, False, 3, "prob")
    assert (views.policy, views.strength, views.count) == ("strong", 0.5, 4)
