"""Nested weights: those that score a part are fitted without its labels, and noise members gain nothing."""

import numpy as np
import pytest

from pcam_ssl.blending.ensemble import METHODS, fit_blend, parts_of, pool, rank_scales
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import auroc

FITTED = [name for name, method in METHODS.items() if method.fit]


def drawn(seed: int, skills, n: int = 240):
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    logits = np.stack([skill * (labels - 0.5) + rng.normal(size=n) for skill in skills], axis=1)
    return labels, logits, np.arange(n) % 4, np.ones(n, bool)


@pytest.mark.parametrize("method", FITTED)
def test_weights_that_score_a_part_never_saw_its_labels(method):
    labels, logits, parts, usable = drawn(0, (2, 1, 0.5))
    scrambled = np.where(parts == 2, 1 - labels, labels)
    before, after = (fit_blend(method, logits, each, parts, usable, "fold", 0.99) for each in (labels, scrambled))
    rows = parts == 2
    assert np.array_equal(before.nested[2], after.nested[2])
    assert np.array_equal(before.out_of_fold(logits, [])[rows], after.out_of_fold(logits, [])[rows])
    assert not np.array_equal(before.nested[1], after.nested[1])


@pytest.mark.parametrize("method", FITTED)
def test_hidden_labels_weigh_nothing(method):
    labels, logits, parts, _ = drawn(0, (2, 1, 0.5))
    usable = np.random.default_rng(1).random(len(labels)) < 0.7
    turned = np.where(usable, labels, 1 - labels)
    before, after = (fit_blend(method, logits, each, parts, usable, "fold", 0.99) for each in (labels, turned))
    assert np.array_equal(before.weights, after.weights)
    assert all(np.array_equal(before.nested[part], after.nested[part]) for part in range(4))


@pytest.mark.parametrize("method", FITTED)
def test_nested_weights_of_pure_noise_do_not_beat_the_best_single_run(method):
    gains = []
    for seed in range(12):
        labels, logits, parts, usable = drawn(seed, [0] * 8)
        blend = fit_blend(method, logits, labels, parts, usable, "fold")
        gains.append(auroc(labels, blend.out_of_fold(logits, [])) - max(auroc(labels, column) for column in logits.T))
    assert max(gains) < 0


@pytest.mark.parametrize("method", FITTED)
def test_weights_fitted_on_what_they_score_would_have_beaten_chance_on_noise(method):
    """The control of the test above: not nested, the same weights flatter."""
    nested, flattered = [], []
    for seed in range(12):
        labels, logits, parts, usable = drawn(seed, [0] * 8)
        blend = fit_blend(method, logits, labels, parts, usable, "fold")
        nested.append(auroc(labels, blend.out_of_fold(logits, [])))
        flattered.append(auroc(labels, pool(METHODS[method].space, logits, blend.weights)))
    assert np.mean(flattered) > 0.55
    assert abs(np.mean(nested) - 0.5) < 0.03


@pytest.mark.parametrize("method", FITTED)
def test_noise_beside_a_good_run_costs_next_to_nothing(method):
    labels, logits, parts, usable = drawn(5, (3, 0, 0, 0), n=1200)
    blend = fit_blend(method, logits, labels, parts, usable, "fold")
    assert blend.weights[0] > 0.8
    assert auroc(labels, blend.out_of_fold(logits, [])) == pytest.approx(auroc(labels, logits[:, 0]), abs=0.01)


def test_labels_that_a_budget_hides_are_not_fitted_on():
    labels, logits, parts, usable = drawn(1, (2, 1))
    usable[::3] = False
    scrambled = np.where(usable, labels, 1 - labels)
    before, after = (fit_blend("weights", logits, each, parts, usable, "fold") for each in (labels, scrambled))
    assert np.array_equal(before.weights, after.weights)


def test_folds_are_the_parts_where_there_are_two_or_more():
    parts, unit = parts_of([0, 1, 1, 0], ["a", "b", "b", "a"])
    assert (parts.tolist(), unit) == ([0, 1, 1, 0], "fold")


def test_one_fold_is_cut_into_parts_of_whole_slides_of_like_size():
    groups = np.repeat([f"s{i}" for i in range(12)], [30, 5, 5, 5, 20, 5, 10, 10, 5, 5, 10, 10])
    parts, unit = parts_of(np.zeros(len(groups)), groups)
    assert unit == "part"
    assert all(len(set(parts[groups == group])) == 1 for group in set(groups))
    assert np.bincount(parts).tolist() == [30, 25, 25, 20, 20]


def test_one_class_outside_a_part_is_refused():
    labels, logits, parts, usable = np.array([0, 0, 1, 1]), np.zeros((4, 2)), np.array([0, 0, 1, 1]), np.ones(4, bool)
    with pytest.raises(UserError, match="--method weights: the labels outside fold 0 are all of one class"):
        fit_blend("weights", logits, labels, parts, usable, "fold")


def test_a_mean_needs_no_labels_of_both_classes():
    blend = fit_blend("mean", np.zeros((4, 2)), np.ones(4), np.array([0, 0, 1, 1]), np.ones(4, bool), "fold")
    assert blend.weights.tolist() == [0.5, 0.5]


def test_one_slide_leaves_nothing_to_fit_on():
    parts, unit = parts_of(np.zeros(4), ["a"] * 4)
    with pytest.raises(UserError, match="--method greedy: there is one slide only"):
        fit_blend("greedy", np.zeros((4, 2)), np.array([0, 1, 0, 1]), parts, np.ones(4, bool), unit)


def test_each_member_has_its_own_scale_of_ranks():
    low, high = rank_scales(np.array([[0.0, 10.0], [1.0, 11.0]]))
    assert low.share([1.0]).tolist() == high.share([11.0]).tolist() == [0.75]


@pytest.mark.parametrize("method", METHODS)
def test_a_patch_is_blended_the_same_alone_as_among_others(method):
    labels, logits, parts, usable = drawn(7, np.linspace(2, 0.5, 10))
    blend, scales = fit_blend(method, logits, labels, parts, usable, "fold"), rank_scales(logits)
    whole = pool(METHODS[method].space, logits, blend.weights, scales)
    for size in (1, 2, 3, 100):
        pieces = [
            pool(METHODS[method].space, logits[start : start + size], blend.weights, scales)
            for start in range(0, len(logits), size)
        ]
        assert np.array_equal(np.concatenate(pieces), whole)
