"""Temperature scaling: recovers a known temperature, and says where there is none to fit."""

import json

import numpy as np
import pytest
from scipy.special import expit

from pcam_ssl.inference.calibrate import HIGHEST, LOWEST, Calibrator, fit_calibrator, fit_temperature
from pcam_ssl.inference.metrics import ece, nll


@pytest.fixture
def overconfident():
    rng = np.random.default_rng(0)
    true_logits = 2 * rng.normal(size=20_000)
    return 3 * true_logits, (rng.random(20_000) < expit(true_logits)).astype(int)


def test_recovers_the_temperature_the_logits_were_scaled_by(overconfident):
    assert fit_temperature(*overconfident) == pytest.approx(3, rel=0.05)


def test_two_rows_by_hand():
    # Logits 1, 1, 1 and 1 with three tumor patches: sigmoid(1 / T) = 3/4, so 1 / T = log 3.
    assert fit_temperature([1, 1, 1, 1], [1, 1, 1, 0]) == pytest.approx(1 / np.log(3), rel=1e-4)


def test_no_temperature_beside_it_is_better(overconfident):
    logits, labels = overconfident
    best = fit_temperature(logits, labels)
    assert nll(labels, expit(logits / best)) < min(nll(labels, expit(logits / (best * step))) for step in (0.98, 1.02))


def test_calibration_improves(overconfident):
    logits, labels = overconfident
    assert ece(labels, fit_calibrator(logits, labels).prob(logits)) < 0.3 * ece(labels, expit(logits))


def test_order_of_patches_is_kept(overconfident):
    logits, labels = overconfident
    assert (np.argsort(fit_calibrator(logits, labels).prob(logits)) == np.argsort(expit(logits / 3))).all()


def test_scaling_the_logits_scales_the_temperature(overconfident):
    logits, labels = overconfident
    assert fit_temperature(5 * logits, labels) == pytest.approx(5 * fit_temperature(logits, labels), rel=1e-3)


def test_huge_logits_stay_finite():
    assert LOWEST <= fit_temperature([1e4, -1e4, 1e4], [1, 0, 0]) <= HIGHEST


def test_logits_that_mislead_are_flattened():
    assert fit_temperature([2, 1, -2, -1], [0, 0, 1, 1]) == pytest.approx(HIGHEST, rel=0.01)


def test_counts_patches_and_slides():
    fitted = fit_calibrator([1, 1, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    assert (fitted.n, fitted.n_slides, fitted.reason) == (4, 2, None)


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        ([], [], "no labelled inner patches: temperature 1, not calibrated"),
        ([0.5, 2.0], [1, 1], "the 2 inner patches are all of class 1: temperature 1, not calibrated"),
        (
            [-0.1, 2.0],
            [0, 1],
            "the 2 inner patches are classified without an error, so no temperature is best: temperature 1, not calibrated",
        ),
    ],
)
def test_says_why_it_did_not_fit(logits, labels, reason):
    fitted = fit_calibrator(logits, labels)
    assert (fitted.temperature, fitted.reason) == (1.0, reason)


def test_unfitted_prob_is_the_sigmoid():
    assert Calibrator().prob([0.0, np.log(3)]) == pytest.approx([0.5, 0.75])


def test_travels_through_json():
    fitted = fit_calibrator([1, 1, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    assert Calibrator.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
