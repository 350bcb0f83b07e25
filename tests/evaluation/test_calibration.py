"""Temperature scaling: it recovers a known temperature and gives the reason where none can be fitted."""

import json

import numpy as np
import pytest
from scipy.special import expit

from pcam_ssl.evaluation.calibration import HIGHEST, LOWEST, Calibrator, fit_calibrator, fit_temperature
from pcam_ssl.evaluation.metrics import ece, nll


@pytest.fixture
def overconfident():
    rng = np.random.default_rng(0)
    true_logits = 2 * rng.normal(size=20_000)
    return 3 * true_logits, (rng.random(20_000) < expit(true_logits)).astype(int)


def test_recovers_the_temperature_the_logits_were_scaled_by(overconfident):
    assert fit_temperature(*overconfident, 20_000) == pytest.approx(3, rel=0.05)


def test_two_rows_by_hand():
    # Logits 1, 1, 1 and 1 with three tumor patches: sigmoid(1 / T) = 3/4, so 1 / T = log 3, for slides without number.
    assert fit_temperature([1, 1, 1, 1], [1, 1, 1, 0], 10**9) == pytest.approx(1 / np.log(3), rel=1e-4)


@pytest.mark.parametrize("n_slides", [1, 4, 30])
def test_the_prior_by_a_plain_search(overconfident, n_slides):
    logits, labels = (part[:500] for part in overconfident)
    grid = np.exp(np.linspace(-1, 2, 3001))
    costs = [n_slides * nll(labels, expit(logits / t)) + np.log(t) ** 2 / (2 * 0.25**2) for t in grid]
    assert fit_temperature(logits, labels, n_slides) == pytest.approx(grid[np.argmin(costs)], rel=2e-3)


def test_few_slides_move_the_temperature_little_and_patches_do_not_count(overconfident):
    logits, labels = overconfident
    few, more, many = (fit_temperature(logits, labels, n) for n in (4, 40, 4000))
    assert 1 < few < more < many
    assert fit_calibrator(logits, labels, np.arange(len(labels)) % 4).temperature == few


def test_the_fitted_temperature_is_a_minimum(overconfident):
    logits, labels = overconfident
    best = fit_temperature(logits, labels, 10**9)
    assert nll(labels, expit(logits / best)) < min(nll(labels, expit(logits / (best * step))) for step in (0.98, 1.02))


def test_calibration_improves(overconfident):
    logits, labels = overconfident
    assert ece(labels, fit_calibrator(logits, labels).prob(logits)) < 0.3 * ece(labels, expit(logits))


def test_order_of_patches_is_kept(overconfident):
    logits, labels = overconfident
    assert (np.argsort(fit_calibrator(logits, labels).prob(logits)) == np.argsort(expit(logits / 3))).all()


def test_scaling_the_logits_scales_the_temperature(overconfident):
    logits, labels = overconfident
    one, five = (fit_temperature(times * logits, labels, 10**9) for times in (1, 5))
    assert five == pytest.approx(5 * one, rel=1e-3)


def test_huge_logits_stay_finite():
    assert LOWEST <= fit_temperature([1e4, -1e4, 1e4], [1, 0, 0], 10**9) <= HIGHEST


def test_logits_that_are_wrong_get_the_highest_temperature():
    assert fit_temperature([2, 1, -2, -1], [0, 0, 1, 1], 10**9) == pytest.approx(HIGHEST, rel=0.01)


def test_counts_patches_and_slides():
    fitted = fit_calibrator([1, 1, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    assert (fitted.n, fitted.n_slides, fitted.reason) == (4, 2, None)


@pytest.mark.parametrize(
    ("logits", "labels", "reason"),
    [
        ([], [], "no labelled inner patches: temperature 1, not calibrated"),
        ([0.5, 2.0], [1, 1], "the 2 inner patches are all of class 1: temperature 1, not calibrated"),
    ],
)
def test_the_reason_is_given_where_no_temperature_is_fitted(logits, labels, reason):
    fitted = fit_calibrator(logits, labels)
    assert (fitted.temperature, fitted.reason) == (1.0, reason)


def test_without_an_error_the_prior_keeps_the_temperature_near_1():
    assert 0.8 < fit_calibrator([-0.1, 2.0], [0, 1], ["a", "b"]).temperature < 1


def test_unfitted_prob_is_the_sigmoid():
    assert Calibrator().prob([0.0, np.log(3)]) == pytest.approx([0.5, 0.75])


def test_a_calibrator_is_read_back_from_json():
    fitted = fit_calibrator([1, 1, 1, 1], [1, 1, 1, 0], ["a", "a", "b", "b"])
    assert Calibrator.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
