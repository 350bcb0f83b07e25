"""ROC and reliability against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score, roc_curve

from pcam_ssl.inference.metrics import ece
from pcam_ssl.report.curves import reliability, roc


def drawn(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    return labels, 1 / (1 + np.exp(-(labels + rng.normal(size=n)))), np.arange(n) % 10


def test_a_curve_by_hand():
    curve = roc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9], None)
    assert curve.false_rate.tolist() == [0, 0, 0.5, 1]
    assert curve.true_rate.tolist() == [0, 0.5, 1, 1]


def test_few_probs_give_the_curve_of_scikit_learn():
    labels, probs, groups = drawn(400)
    curve = roc(labels, probs, groups)
    false, true, _ = roc_curve(labels, probs, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_rate, false)
    np.testing.assert_allclose(curve.true_rate, true)


def test_many_probs_keep_the_area():
    labels, probs, groups = drawn(20_000)
    curve = roc(labels, probs, groups, resamples=2)
    assert len(curve.true_rate) <= 1002
    assert auc(curve.false_rate, curve.true_rate) == pytest.approx(roc_auc_score(labels, probs), abs=1e-4)


def test_constant_probs_are_the_diagonal():
    curve = roc([0, 1, 1], [0.5, 0.5, 0.5], None)
    assert (curve.false_rate.tolist(), curve.true_rate.tolist()) == ([0, 1], [0, 1])


def test_the_band_holds_the_curve():
    labels, probs, groups = drawn(2000)
    curve = roc(labels, probs, groups, resamples=200)
    value, low, high = curve.at(0.2)
    assert low < value < high


def test_alike_slides_have_no_band_width():
    labels, probs, _ = drawn(50)
    curve = roc(np.tile(labels, 6), np.tile(probs, 6), np.repeat(np.arange(6), 50), resamples=50)
    np.testing.assert_allclose(curve.low, curve.high)


def test_patches_that_share_slides_make_the_band_wider():
    labels, probs, _ = drawn(100)
    together = roc(np.repeat(labels, 20), np.repeat(probs, 20), np.repeat(np.arange(100), 20), resamples=200)
    apart = roc(np.repeat(labels, 20), np.repeat(probs, 20), None, resamples=200)
    assert np.mean(together.high - together.low) > 3 * np.mean(apart.high - apart.low)


def test_the_same_seed_gives_the_same_band():
    labels, probs, groups = drawn(300)
    assert np.array_equal(roc(labels, probs, groups, 50, seed=3).low, roc(labels, probs, groups, 50, seed=3).low)


def test_one_slide_has_no_band():
    labels, probs, _ = drawn(50)
    assert roc(labels, probs, ["a"] * 50).low is None


def test_resamples_of_one_class_are_left_out():
    curve = roc([0, 0, 1, 1], [0.2, 0.3, 0.8, 0.9], ["a", "a", "b", "b"], resamples=50)
    np.testing.assert_allclose(curve.low, 1)
    assert curve.at(0.05) == (1.0, 1.0, 1.0)


def test_reliability_by_hand():
    first, last = reliability([0, 1, 1], [0.01, 0.03, 1.0])
    assert (first.n, first.mean_prob, first.tumor_share) == (2, 0.02, 0.5)
    assert (last.left, last.right, last.n) == (14 / 15, 1, 1)


def test_reliability_adds_up_to_the_ece():
    labels, probs, _ = drawn(500)
    bins = reliability(labels, probs)
    assert sum(b.n * abs(b.mean_prob - b.tumor_share) for b in bins) / 500 == pytest.approx(ece(labels, probs))
