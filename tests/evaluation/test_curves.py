"""ROC, precision-recall and reliability against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pcam_ssl.evaluation.curves import precision_recall, reliability, roc
from pcam_ssl.evaluation.metrics import ece


def drawn(n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    return labels, 1 / (1 + np.exp(-(labels + rng.normal(size=n)))), np.arange(n) % 10


def test_a_curve_by_hand():
    curve = roc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9], None)
    assert curve.x.tolist() == [0, 0, 0.5, 1]
    assert curve.y.tolist() == [0, 0.5, 1, 1]


def test_few_probs_give_the_curve_of_scikit_learn():
    labels, probs, groups = drawn(400)
    curve = roc(labels, probs, groups)
    false, true, _ = roc_curve(labels, probs, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, false)
    np.testing.assert_allclose(curve.y, true)


def test_binned_thresholds_keep_the_area():
    labels, probs, groups = drawn(20_000)
    curve = roc(labels, probs, groups, resamples=2)
    assert len(curve.y) <= 1002
    assert auc(curve.x, curve.y) == pytest.approx(roc_auc_score(labels, probs), abs=1e-4)


def test_a_curve_of_binned_thresholds_is_less_than_a_pixel_off():
    labels, probs, groups = drawn(50_000)
    curve = roc(labels, probs, groups, resamples=2)
    false, true, _ = roc_curve(labels, probs, drop_intermediate=False)
    assert np.abs(np.interp(false, curve.x, curve.y) - true).max() < 1 / 368


def test_precision_by_hand():
    curve = precision_recall([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9], None)
    assert (curve.x.tolist(), curve.y.tolist()) == ([0.5, 1, 1], [1, 2 / 3, 0.5])
    assert [curve.at(recall)[0] for recall in (0, 0.5, 0.51, 1)] == [1, 1, 2 / 3, 2 / 3]


def test_precision_is_that_of_scikit_learn_and_its_area_the_average_precision():
    labels, probs, groups = drawn(400)
    curve = precision_recall(labels, probs, groups)
    precision, recall, _ = precision_recall_curve(labels, probs)
    np.testing.assert_allclose(curve.x[::-1], recall[:-1])
    np.testing.assert_allclose(curve.y[::-1], precision[:-1])
    assert np.sum(np.diff(curve.x, prepend=0) * curve.y) == pytest.approx(average_precision_score(labels, probs))


def test_the_precision_band_holds_the_curve_and_stays_within_shares():
    labels, probs, groups = drawn(2000)
    curve = precision_recall(labels, probs, groups, resamples=200)
    value, low, high = curve.at(0.9)
    assert low < value < high
    assert 0 <= curve.low.min() <= curve.high.max() <= 1


def test_constant_probs_have_the_prevalence_as_precision():
    curve = precision_recall([0, 1, 1, 0], [0.5] * 4, ["a", "a", "b", "b"], resamples=20)
    assert (curve.x.tolist(), curve.y.tolist()) == ([1], [0.5])
    assert curve.at(0.2) == (0.5, 0.5, 0.5)


def test_constant_probs_are_the_diagonal():
    curve = roc([0, 1, 1], [0.5, 0.5, 0.5], None)
    assert (curve.x.tolist(), curve.y.tolist()) == ([0, 1], [0, 1])


def test_the_band_holds_the_curve():
    labels, probs, groups = drawn(2000)
    curve = roc(labels, probs, groups, resamples=200)
    value, low, high = curve.at(0.2)
    assert low < value < high


def test_identical_slides_have_a_band_of_zero_width():
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
    # A resample that draws a slide of one class four times has no curve; the others are all right.
    curve = roc([0, 0, 1, 1], [0.2, 0.3, 0.8, 0.9], ["a", "b", "c", "d"], resamples=50)
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
