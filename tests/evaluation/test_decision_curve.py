"""Net benefit by hand and by a plain loop."""

import numpy as np
import pytest

from pcam_ssl.evaluation.operating_point import THRESHOLDS, decision_curve


def at(curve: np.ndarray, threshold: float) -> float:
    return curve[round(100 * threshold) - 1]


def test_net_benefit_by_hand():
    curve = decision_curve([1, 1, 0, 0, 0], [0.9, 0.2, 0.6, 0.2, 0.1], None)
    assert at(curve.network, 0.5) == pytest.approx((1 - 1) / 5)
    assert at(curve.network, 0.2) == pytest.approx((2 - 2 * 0.25) / 5)  # a prob at the threshold is called
    assert at(curve.network, 0.8) == pytest.approx(1 / 5)
    assert at(curve.treat_all, 0.2) == pytest.approx((2 - 3 * 0.25) / 5)


def test_net_benefit_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    labels, probs = rng.integers(2, size=300), np.round(rng.random(300), 2)
    curve = decision_curve(labels, probs, None)
    for threshold, benefit in zip(THRESHOLDS, curve.network, strict=True):
        called = probs >= threshold
        cost = threshold / (1 - threshold)
        assert benefit == pytest.approx(((called & (labels == 1)).sum() - cost * (called & (labels == 0)).sum()) / 300)


def test_a_good_network_is_measurably_better_and_a_constant_one_nowhere():
    rng = np.random.default_rng(1)
    labels, slides = rng.integers(2, size=2000), np.arange(2000) % 40
    good = decision_curve(labels, np.clip(0.8 * labels + 0.2 * rng.random(2000), 0, 1), slides)
    assert good.better[20:80].all()
    assert (good.low <= good.network).all()
    assert not decision_curve(labels, np.full(2000, 0.5), slides).better.any()


def test_one_slide_has_no_band_and_no_measurable_gain():
    curve = decision_curve([0, 1], [0.1, 0.9], ["a", "a"])
    assert (curve.low, curve.high) == (None, None)
    assert not curve.better.any()


def test_slides_make_the_band_wider_than_patches():
    rng = np.random.default_rng(2)
    slides = np.repeat(np.arange(20), 50)
    labels = (rng.random(20)[slides] > 0.5).astype(int)
    probs = 1 / (1 + np.exp(-labels - rng.normal(size=20)[slides]))
    together, apart = (decision_curve(labels, probs, groups) for groups in (slides, None))
    assert np.mean(together.high - together.low) > 3 * np.mean(apart.high - apart.low)
