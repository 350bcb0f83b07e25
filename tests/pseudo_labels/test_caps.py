import numpy as np
import pytest
from pools import all_of, rated_of, staying

from pcam_ssl.pseudo_labels.selectors import (
    class_share,
    duplicate_cap,
    k_best,
    keep_most_confident,
    round_cap,
    slide_cap,
    top_share,
)

FALLING = [0.99, 0.98, 0.97, 0.96, 0.04, 0.05]  # normal e is as sure as d, but for rounding; f is the least sure


def test_k_best_of_each_class():
    pool = rated_of(FALLING)
    reasons = k_best(pool, all_of(pool), 1)
    assert staying(pool, reasons) == "ae"
    assert reasons[1] == "not among the 1 surest of its class (pseudo.k_best)"


def test_top_share_is_of_the_whole_pool_and_of_either_class():
    pool = rated_of([0.99, 0.6, 0.02, 0.7])
    stays = np.array([False, True, True, True])
    reasons = top_share(pool, stays, 0.5)
    assert reasons.tolist() == ["", "not among the 2 surest, 0.5 of the pool (pseudo.top_share)", "", ""]


def test_class_share_grows_by_round_in_each_class():
    pool = rated_of(FALLING)  # four called tumor, two called normal
    kept = [staying(pool, class_share(pool, all_of(pool), 0.5, number)) for number in (1, 2, 3)]
    assert kept == ["abe", "abcdef", "abcdef"]
    reasons = class_share(pool, all_of(pool), 0.25, 1)
    assert reasons[1] == "not among the 1 surest of its class, 0.25 of those called tumor (pseudo.class_share, round 1)"


def test_slide_cap_keeps_the_most_confident_of_a_slide_and_all_of_unknown_slide():
    pool = rated_of([0.8, 0.9, 0.1, 0.7, 0.6, 0.6], wsi=["s", "s", "t", "s", None, None])
    reasons = slide_cap(pool, all_of(pool), 1)
    assert staying(pool, reasons) == "bcef"
    assert reasons[0] == "its slide has 1 surer patches (pseudo.slide_cap)"


def test_duplicate_cap_goes_by_what_hangs_together():
    # a-b and b-c differ in 3 bits, a-c in 6; d is far off; e has no hash.
    hashes = ["0000000000000000", "0000000000000007", "000000000000003f", "ffffffffffffffff", None]
    pool = rated_of([0.7, 0.8, 0.9, 0.6, 0.6], view_hash=hashes)
    reasons = duplicate_cap(pool, all_of(pool), 1)
    assert staying(pool, reasons) == "cde"
    assert reasons[0] == "has 1 surer near duplicates (pseudo.duplicate_cap)"


def test_duplicate_groups_hang_together_by_candidates_alone():
    pool = rated_of([0.7, 0.8, 0.9], view_hash=["0000000000000000", "0000000000000007", "000000000000003f"])
    reasons = duplicate_cap(pool, np.array([True, False, True]), 1)
    assert (reasons == "").all()


def test_duplicate_cap_of_many_equal_hashes():
    pool = rated_of(np.linspace(0.6, 0.9, 20_000), view_hash=["0" * 16] * 20_000)
    assert (duplicate_cap(pool, all_of(pool), 2) == "").sum() == 2


def test_duplicate_cap_without_any_hash():
    pool = rated_of([0.7, 0.8])
    assert (duplicate_cap(pool, all_of(pool), 1) == "").all()


def test_round_cap_keeps_the_ratio_of_the_candidates():
    pool = rated_of([0.99, 0.98, 0.97, 0.96, 0.02, 0.01, 0.5, 0.5])
    stays = np.array([True] * 6 + [False] * 2)
    reasons = round_cap(pool, stays, 3 / 8)
    assert (reasons[stays] == "").tolist() == [True, True, False, False, False, True]
    assert reasons[2] == "a round may add 3 (0.375 of the pool), of them 2 tumor (pseudo.round_cap)"


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_round_cap_that_is_not_reached_cuts_nothing(share):
    pool = rated_of([0.9, 0.1, 0.9, 0.1])
    assert (round_cap(pool, np.array([True, True, False, False]), share) == "").all()


def test_keep_most_confident_touches_one_class():
    pool = rated_of(FALLING)
    assert staying(pool, keep_most_confident(pool, all_of(pool), 1, 2, "too many")) == "abef"
