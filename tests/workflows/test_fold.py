"""What a finished fold's numbers rest on."""

import numpy as np
import pytest

from pcam_ssl.files import read_json
from pcam_ssl.tables import read_table
from pcam_ssl.workflows.calibration import calibrator_of

FOLDS = (0, 1)


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
    inner, frame = inner_table(finished, fold), read_table(finished.folds)[0]
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
