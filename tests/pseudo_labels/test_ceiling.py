"""The ceiling: nested budgets of both classes, heads that know nothing of what they score, and an interval that covers the luck of the labels."""

import numpy as np
import pytest
import torch

from pcam_ssl.evaluation.confidence import Groups
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.pseudo_labels.ceiling import DRAWS, Ceiling, budgets, draws, fit_fold, luck_variance, score_heads


def patches(n: int, seed: int = 0, dimension: int = 30):
    """Features [n, D], labels and slides [n]: two clouds that overlap."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(np.int64)
    features = rng.normal(size=(n, dimension))
    features[:, 0] += 1.5 * labels
    return torch.from_numpy(features).float(), labels, np.arange(n) % 10


@pytest.fixture(scope="module")
def scored():
    """The heads of two folds, and the labels and slides of what they score."""
    heads, labels, slides = [], [], []
    for fold in (0, 1):
        features, own, parts = patches(160, fold)
        theirs, truth, names = patches(200, 10 + fold)
        heads.append(fit_fold(features, own, parts % 4, theirs, (0, fold)))
        labels.append(truth)
        slides.append(names + 10 * fold)
    return heads, np.concatenate(labels), np.concatenate(slides).astype(str)


def test_budgets_are_shares_of_the_labels():
    assert budgets(np.repeat([0, 1], 40)).tolist() == [10, 20, 40, 80]


def test_a_budget_without_a_patch_of_each_class_is_left_out():
    assert budgets(np.array([1] * 3 + [0] * 37)).tolist() == [20, 40]


@pytest.mark.parametrize("tumor", [3, 20, 60])
def test_every_budget_holds_both_classes_and_lies_in_the_next(tumor):
    labels = np.array([1] * tumor + [0] * (80 - tumor))
    for order in draws(labels, (0,)):
        assert sorted(order) == list(range(80))
        for size in budgets(labels):
            assert 0 < labels[order < size].sum() < size


def test_draws_differ_and_come_again_with_their_seed():
    labels = patches(50)[1]
    first, again, other = (draws(labels, seed) for seed in ((1, 0), (1, 0), (2, 0)))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], first[1])


def test_the_largest_budget_is_all_labels_in_every_draw(scored):
    (head, _), *_ = scored
    assert head.logits.shape == (DRAWS, 4, 200)
    assert np.array_equal(head.logits[:, -1], np.broadcast_to(head.logits[0, -1], (DRAWS, 200)))
    assert len({logits.tobytes() for logits in head.logits[:, 0]}) == DRAWS


def test_the_head_on_all_labels_scores_other_patches_as_it_scored_those_of_the_fold(scored):
    (head, _), *_ = scored
    np.testing.assert_allclose(head.logits_of(patches(200, 10)[0]), head.logits[0, -1], rtol=0, atol=1e-4)


def test_logits_of_training_patches_come_from_heads_that_did_not_learn_them():
    """Labels without any relation to the features: heads that had seen them would still rank them."""
    rng = np.random.default_rng(0)
    features, labels = torch.from_numpy(rng.normal(size=(200, 300))).float(), rng.integers(0, 2, 200)
    head = fit_fold(features, labels, np.arange(200) % 4, features, (0,))
    assert auroc(labels, head.logits[0, -1]) > 0.95
    assert auroc(labels, head.learned) < 0.65


def test_more_labels_score_better_and_the_law_goes_on(scored):
    ceiling = score_heads(*scored, seed=0)
    means = ceiling.aurocs.mean(axis=0)
    assert means[-1] == pytest.approx(auroc(scored[1], ceiling.probs))
    assert (np.diff(means) > 0).all()
    near, far = (ceiling.gain(160, more) for more in (160, 1600))
    assert 0 < near["value"] < far["value"] < 1 - means[-1]
    assert near["low"] < near["value"] < near["high"]


def test_no_floor_is_fitted_because_shared_luck_looks_like_one(scored):
    assert not score_heads(*scored, seed=0).curve.floor and not np.any(score_heads(*scored, seed=0).curve.mean.a)


def test_it_is_the_same_for_the_same_seed(scored):
    first, again = (score_heads(*scored, seed=3).gain(160, 100) for _ in range(2))
    assert first == again


def test_without_slides_of_both_classes_there_is_no_interval(scored):
    heads, labels, _ = scored
    ceiling = score_heads(heads, labels, np.full(len(labels), "one"), 0)
    assert ceiling.gain(160, 100)["low"] is None and ceiling.resolvable is None


def test_luck_is_the_spread_of_sets_as_large_as_all_labels():
    """A mean of m out of n values: sets of n have variance 1 / n, here 0.01."""
    rng, n, sizes = np.random.default_rng(0), 100, np.array([12, 25, 50, 100])
    found = []
    for _ in range(300):
        values = rng.normal(size=n)
        found.append(
            luck_variance(
                sizes, np.array([[values[order[:m]].mean() for m in sizes] for order in (rng.permutation(n) for _ in range(10))])
            )
        )
    assert np.mean(found) == pytest.approx(0.01, rel=0.05)


def of(aurocs, drawn) -> Ceiling:
    from pcam_ssl.evaluation.power_law import fit_curve

    sizes, groups = np.array([12.0, 25, 50, 100]), Groups(200, 200, 200.0)
    return Ceiling(sizes, aurocs, drawn, np.empty(0), groups, fit_curve(sizes, aurocs, drawn.mean(0).T, groups, floor=False))


def test_the_interval_covers_the_luck_of_the_labels():
    """Equal slides in every resample, so that only draws and luck are left."""
    means = 1 - 0.5 * np.array([12.0, 25, 50, 100]) ** -0.3
    spread = 0.004 * np.sqrt(100 / np.array([12.0, 25, 50, 100]) - 1)
    aurocs = means + spread * np.random.default_rng(0).standard_normal((DRAWS, 1))
    ceiling = of(aurocs, np.broadcast_to(aurocs[:, :, None], (DRAWS, 4, 50)))
    gain = ceiling.gain(100, 300)
    luck = np.sqrt(luck_variance(ceiling.budgets, aurocs) * 300 / 400)
    assert gain["high"] - gain["value"] > 1.96 * luck
    # Half of the way to a pool of any size takes half of the luck's variance away.
    assert ceiling.gain(100, 1)["high"] - ceiling.gain(100, 1)["value"] < 0.3 * (gain["high"] - gain["value"])


def test_what_can_be_seen_is_half_the_paired_interval_from_half_of_the_labels_to_all():
    rng, means = np.random.default_rng(0), np.full((DRAWS, 4), 0.9)
    both = rng.normal(0, 0.05, (DRAWS, 1, 4000))
    drawn = np.repeat(means[:, :, None], 4000, 2) + both
    drawn[:, -2] += rng.normal(0, 0.01, (DRAWS, 4000))
    assert of(means, drawn).resolvable == pytest.approx(1.97 * 0.01, rel=0.03)
