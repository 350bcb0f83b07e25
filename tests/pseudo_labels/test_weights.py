import numpy as np
import pytest
from pools import pool_of

from pcam_ssl.pseudo_labels.selection import WEIGHTS, confidence_weights, decide, softmatch_weights
from pcam_ssl.recipe.schema import Pseudo


def test_the_scale_is_a_factor_on_every_weight():
    options = Pseudo(precision=None, top_share=1, balance="none", weight_scale=0.5)
    assert decide(pool_of([0.1, 0.9]), None, options, None, "d")[0].weight.tolist() == [0.5, 0.5]


def test_agreement_is_lower_the_more_opinions_differ():
    pool = pool_of([0.1, 0.9, 0.5], disagreement=[0.0, 0.25, 1.0])
    assert WEIGHTS["agreement"](pool).tolist() == [1, 0.75, 0]


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


@pytest.mark.parametrize("rule", WEIGHTS)
def test_an_empty_pool_has_no_weights(rule):
    assert WEIGHTS[rule](pool_of([])).shape == (0,)
