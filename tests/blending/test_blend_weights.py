"""Weights against plain searches: a grid for the convex fit, a double loop for forward selection."""

import numpy as np
import pytest

from pcam_ssl.blending.ensemble import fitted_weights, greedy_weights, member_weights, under_cap


def nll(labels, logits):
    return np.mean(np.logaddexp(0, logits) - labels * logits)


@pytest.fixture
def members():
    """labels [400] and logits [400, 3]: a good member, a worse one, and noise; each has made its own errors."""
    rng = np.random.default_rng(2)
    labels = rng.integers(2, size=400)
    logits = np.stack([skill * (labels - 0.5) + rng.normal(size=400) for skill in (3, 2, 0)], axis=1)
    return labels, logits


def test_fitted_weights_are_those_of_least_nll_on_a_grid(members):
    labels, logits = members
    logits = logits[:, :2]
    grid = np.linspace(0, 1, 2001)
    best = grid[np.argmin([nll(labels, logits @ [w, 1 - w]) for w in grid])]
    assert 0.05 < best < 0.95
    assert fitted_weights(logits, labels)[0] == pytest.approx(best, abs=1e-3)


def test_weights_are_not_negative_and_sum_to_one(members):
    labels, logits = members
    weights = fitted_weights(np.column_stack([logits, -logits]), labels)
    assert weights.min() >= 0 and weights.sum() == pytest.approx(1)


def test_a_member_that_only_harms_gets_no_weight(members):
    labels, logits = members
    assert fitted_weights(np.column_stack([logits[:, 0], -3 * logits[:, 0]]), labels).tolist() == [1, 0]


def test_a_lone_member_has_all_the_weight(members):
    labels, logits = members
    assert fitted_weights(logits[:, :1], labels).tolist() == greedy_weights(logits[:, :1], labels).tolist() == [1]


def test_greedy_selection_is_the_plain_double_loop(members):
    labels, logits = members
    chosen, best = [], (np.inf, [])
    for _ in range(12):
        costs = [nll(labels, logits[:, [*chosen, member]].mean(axis=1)) for member in range(3)]
        chosen = [*chosen, int(np.argmin(costs))]
        best = min(best, (min(costs), chosen), key=lambda found: found[0])
    shares = np.bincount(best[1], minlength=3) / len(best[1])
    assert len(set(best[1])) > 1
    assert greedy_weights(logits, labels, picks=12) == pytest.approx(shares)


def test_of_equal_members_greedy_selection_keeps_the_first(members):
    labels, logits = members
    assert greedy_weights(logits[:, [0, 0, 0]], labels).tolist() == [1, 0, 0]


def test_the_cap_drops_the_worse_of_two_that_are_alike(members):
    labels, logits = members
    worse = logits[:, 0] + 0.3 * np.random.default_rng(3).normal(size=400)
    assert under_cap(np.column_stack([worse, logits[:, 0], logits[:, 1]]), labels, 0.9).tolist() == [False, True, True]


def test_a_constant_member_is_above_no_cap_and_has_the_lowest_place(members):
    labels, logits = members
    constant = np.column_stack([np.zeros(400), logits[:, 0]])
    assert under_cap(constant, labels, 0.5).tolist() == [True, True]


@pytest.mark.parametrize("method", ["mean", "rank-mean", "logit-mean", "weights", "greedy"])
def test_what_the_cap_dropped_has_no_weight_by_any_method(members, method):
    labels, logits = members
    weights = member_weights(method, logits[:, [0, 0, 1]], labels, cap=0.95)
    assert weights[1] == 0 and weights[0] > 0 and weights.sum() == pytest.approx(1)


def test_plain_means_weigh_all_alike(members):
    labels, logits = members
    assert member_weights("mean", logits, labels) == pytest.approx([1 / 3] * 3)


def test_of_members_that_rounding_alone_parts_greedy_selection_keeps_the_first(members):
    labels, logits = members
    better = logits[:, 0] + 1e-15 * (labels - 0.5)
    assert greedy_weights(np.column_stack([logits[:, 0], better]), labels).tolist() == [1, 0]


def test_fitted_weights_do_not_hang_on_how_logits_lie_in_memory():
    rng = np.random.default_rng(4)
    for _ in range(10):
        labels = rng.integers(2, size=301)
        logits = (labels[:, None] - 0.5) * rng.uniform(0, 3, 9) + rng.normal(size=(301, 9))
        assert np.array_equal(fitted_weights(logits, labels), fitted_weights(np.asfortranarray(logits), labels))
