import numpy as np
import pytest

from pcam_ssl.pseudo_labels.selection import confidence_weights, pseudo_weights, softmatch_weights


def test_constant_is_the_scale():
    assert pseudo_weights([0.1, 0.9], "constant", 0.5).tolist() == [0.5, 0.5]


def test_confidence_goes_from_a_coin_to_certainty():
    np.testing.assert_allclose(confidence_weights(np.array([0.5, 0.75, 0.25, 1.0, 0.0])), [0, 0.5, 0.5, 1, 1])


def test_softmatch_by_hand():
    # Confidences 0.6, 0.8, 1.0: mean 0.8, variance 0.08 / 3.
    weights = softmatch_weights(np.array([0.4, 0.8, 1.0]))
    np.testing.assert_allclose(weights, [np.exp(-(0.2**2) / (2 * 0.08 / 3)), 1, 1])


def test_softmatch_of_equal_confidences_is_one():
    assert softmatch_weights(np.array([0.7, 0.7, 0.7])).tolist() == [1, 1, 1]


def test_softmatch_is_the_same_in_any_order():
    probs = np.random.default_rng(0).random(1000)
    order = np.argsort(probs)
    assert (softmatch_weights(probs)[order] == softmatch_weights(probs[order])).all()


@pytest.mark.parametrize("rule", ["constant", "confidence", "softmatch"])
def test_an_empty_pool_has_no_weights(rule):
    assert pseudo_weights([], rule).shape == (0,)
