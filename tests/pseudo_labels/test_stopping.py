import pytest

from pcam_ssl.pseudo_labels.stopping import added_too_few, no_better, ratio_off, too_many_flips


def fold(pool=100, normal=0, tumor=0, prior=0.5, flipped=0):
    return {
        "pool": pool,
        "prior": prior if pool else None,
        "added": {"normal": normal, "tumor": tumor},
        "change": {"flipped": flipped},
    }


def test_too_few_counts_the_folds_together():
    assert added_too_few([fold(normal=0), fold(normal=2)], 0.01) is None
    assert added_too_few([fold(normal=0), fold(normal=1)], 0.01) == (
        "1 of 200 pool patches would be added (0.50%), less than 1.00% (pseudo.stop_share=0.01)"
    )


def test_too_few_in_spite_of_rounding():
    assert added_too_few([fold(tumor=7)], 0.07) is None


@pytest.mark.parametrize("limit", [None, 0.0])
def test_too_few_is_off_or_bears_nothing_added(limit):
    assert added_too_few([fold()], limit) is None


def test_too_few_of_an_empty_pool():
    assert added_too_few([fold(pool=0)], 0.0) == (
        "0 of 0 pool patches would be added; pseudo-labels need unlabelled patches (pseudo.stop_share)"
    )


def test_ratio_within_and_beyond_the_limit():
    assert ratio_off([fold(normal=5, tumor=15)], 0.25) is None
    assert ratio_off([fold(normal=4, tumor=16)], 0.25) == (
        "0.800 of what would be added is tumor, and 0.500 of the pool is expected to be; they differ by more than 0.25 (pseudo.stop_ratio=0.25)"
    )


def test_ratio_weighs_the_prior_by_the_pool():
    folds = [fold(pool=300, prior=0.2, normal=10), fold(pool=100, prior=0.6, tumor=10), fold(pool=0)]
    assert "0.500 of what would be added is tumor, and 0.300 of" in ratio_off(folds, 0.1)


def test_ratio_of_nothing_added_is_not_judged():
    assert ratio_off([fold()], 0.25) is None


def test_ratio_is_off():
    assert ratio_off([fold(normal=20)], None) is None


def test_flips_within_and_beyond_the_limit():
    assert too_many_flips([fold(tumor=10, flipped=1)], 0.1) is None
    assert too_many_flips([fold(tumor=10, flipped=1), fold(normal=10, flipped=2)], 0.1) == (
        "3 of 20 pseudo-labels changed their class (15.00%), more than 10.00% (pseudo.stop_flips=0.1)"
    )


def test_flips_are_off_or_none():
    assert too_many_flips([fold(tumor=10, flipped=9)], None) is None
    assert too_many_flips([fold()], 0.1) is None


def test_no_better_than_the_best_before():
    assert no_better([0.80, 0.85, 0.85], True) == (
        "round 2 is no better on the inner slides: AUROC 0.8500, and 0.8500 in round 1 (pseudo.stop_worse=true)"
    )


@pytest.mark.parametrize("scores", [[], [0.8], [0.8, 0.9], [0.8, None], [None, 0.7], [0.8, None, 0.9]])
def test_better_or_not_to_be_judged(scores):
    assert no_better(scores, True) is None


def test_an_undefined_round_is_stepped_over():
    assert no_better([0.9, None, 0.8], True).startswith("round 2 is no better")


def test_no_better_is_off():
    assert no_better([0.9, 0.8], False) is None
