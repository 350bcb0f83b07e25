"""Pooling members by hand-computable cases: as probs, as logits, as ranks."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import rankdata

from pcam_ssl.blending.ensemble import pool, rank_scale
from pcam_ssl.tables import mean_over


def logit(prob):
    return np.log(np.asarray(prob) / (1 - np.asarray(prob)))


def scales_of(logits):
    return [rank_scale(column) for column in logits.T]


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=(300, 3)) * [1, 3, 0.2]


def test_the_mean_of_probs_is_the_mean_of_probs():
    probs = np.array([[0.2, 0.6], [0.9, 0.7]])
    assert expit(pool("prob", logit(probs), [0.25, 0.75])) == pytest.approx([0.5, 0.75])


def test_the_mean_of_probs_keeps_its_digits_where_probs_are_one_to_the_last_bit():
    assert pool("prob", np.array([[60.0, 60.0], [-60.0, -60.0]]), [0.5, 0.5]) == pytest.approx([60.0, -60.0])


def test_the_mean_of_logits_is_the_mean_of_logits():
    assert pool("logit", np.array([[1.0, 3.0]]), [0.5, 0.5]).tolist() == [2.0]


def test_a_rank_is_the_share_of_reference_patches_below_and_half_of_those_equal():
    scale = rank_scale([0.0, 1.0, 1.0, 4.0])
    assert scale.share([0.0, 1.0, 4.0]).tolist() == [0.125, 0.5, 0.875]


def test_mean_ranks_order_patches_as_the_mean_of_their_ranks_does(logits):
    weights = [0.5, 0.3, 0.2]
    pooled, wanted = pool("rank", logits, weights, scales_of(logits)), rankdata(logits, axis=0) @ weights
    # Rounded, for equal mean ranks may differ in the last bit.
    assert np.array_equal(rankdata(pooled.round(9)), rankdata(wanted.round(9)))


def test_a_rank_blend_of_a_member_with_itself_is_the_member(logits):
    same = logits[:, [0, 0]]
    assert pool("rank", same, [0.5, 0.5], scales_of(same)) == pytest.approx(logits[:, 0], abs=1e-9)


def test_patches_beyond_the_reference_keep_their_order(logits):
    new = np.array([[5.0, 20.0, 3.0], [6.0, 21.0, 4.0], [-9.0, -30.0, -8.0], [-8.0, -29.0, -7.0]])
    pooled = pool("rank", new, [1 / 3] * 3, scales_of(logits))
    assert np.argsort(pooled).tolist() == [2, 3, 0, 1]


@pytest.mark.parametrize("space", ["prob", "logit", "rank"])
def test_a_patch_is_pooled_the_same_alone_as_among_others(space):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        n_members = int(rng.integers(2, 16))
        logits, weights = rng.normal(size=(1300, n_members)) * rng.uniform(0.1, 30, n_members), rng.dirichlet(np.ones(n_members))
        scales = scales_of(logits)
        whole, order = pool(space, logits, weights, scales), rng.permutation(1300)
        assert np.array_equal(pool(space, logits[order], weights, scales), whole[order])
        for size in (1, 2, 3, 17, 300):
            start = int(rng.integers(1300 - size))
            part = slice(start, start + size)
            assert np.array_equal(pool(space, logits[part], weights, scales), whole[part])
            assert np.array_equal(pool(space, np.asfortranarray(logits[part]), weights, scales), whole[part])


@pytest.mark.parametrize("space", ["prob", "logit", "rank"])
def test_a_lone_member_of_weight_comes_back_to_the_bit(logits, space):
    scales = scales_of(logits)
    assert np.array_equal(pool(space, logits[:, :1], [1.0], scales[:1]), logits[:, 0])
    assert np.array_equal(pool(space, logits, [0.0, 1.0, 0.0], scales), logits[:, 1])


@pytest.mark.parametrize("space", ["prob", "logit", "rank"])
def test_a_blend_of_equal_members_is_that_member(logits, space):
    same = logits[:, [1] * 12]
    assert pool(space, same, np.full(12, 1 / 12), scales_of(same)) == pytest.approx(logits[:, 1], abs=1e-9)


@pytest.mark.parametrize("weights", [None, "given"])
def test_a_place_has_the_same_mean_alone_as_among_others(weights):
    rng = np.random.default_rng(3)
    members, weights = rng.normal(size=(15, 300)), weights and rng.dirichlet(np.ones(15))
    alone = [mean_over(members[:, place : place + 1], weights)[0] for place in range(300)]
    assert np.array_equal(mean_over(members, weights), alone)
    assert alone == pytest.approx(np.average(members, axis=0, weights=weights))


@pytest.mark.parametrize("space", ["prob", "logit", "rank"])
def test_a_member_of_weight_zero_has_no_say(logits, space):
    changed = np.column_stack([logits[:, 0], np.full(300, 1e6), logits[:, 2]])
    weights, scales = [0.4, 0.0, 0.6], scales_of(logits)
    assert np.array_equal(pool(space, changed, weights, scales), pool(space, logits, weights, scales))
