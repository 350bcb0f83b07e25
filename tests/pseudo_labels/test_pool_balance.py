import numpy as np
import pytest
from pools import all_of, rated_of, staying

from pcam_ssl.pseudo_labels.selectors import balance, pool_prior


def test_prior_is_the_mean_prob():
    assert pool_prior(rated_of([0.9, 0.2, 0.1])) == pytest.approx(0.4)


def test_an_empty_pool_has_no_prior():
    assert pool_prior(rated_of([])) is None


def test_prior_is_the_same_number_in_any_order():
    probs = np.random.default_rng(0).random(1000)
    assert pool_prior(rated_of(probs)) == pool_prior(rated_of(np.sort(probs)))


def test_the_most_confident_of_too_many_tumor_patches_stay():
    pool = rated_of([0.6, 0.7, 0.8, 0.9, 0.1, 0.1, 0.1])
    reasons = balance(pool, all_of(pool), 0.25)
    assert staying(pool, reasons) == "defg"
    assert reasons[0] == "1 surer tumor patches fill the tumor share of 0.25 (pseudo.balance)"


def test_the_most_confident_of_too_many_normal_patches_stay():
    pool = rated_of([0.9, 0.1, 0.2, 0.3, 0.4])
    reasons = balance(pool, all_of(pool), 1 / 3)
    assert staying(pool, reasons) == "abc"
    assert reasons[4] == "2 surer normal patches fill the tumor share of 0.3333 (pseudo.balance)"


def test_the_right_share_stays_whole():
    pool = rated_of([0.9, 0.1, 0.2, 0.3])
    assert staying(pool, balance(pool, all_of(pool), 0.25)) == "abcd"


@pytest.mark.parametrize(("probs", "absent"), [([0.9, 0.8], "normal"), ([0.1, 0.2], "tumor")])
def test_one_class_keeps_nothing(probs, absent):
    pool = rated_of(probs)
    reasons = balance(pool, all_of(pool), 0.4)
    assert reasons.tolist() == [f"no {absent} patch is left to keep a tumor share of 0.4 (pseudo.balance)"] * 2


@pytest.mark.parametrize(("probs", "prior"), [([0.1, 0.2, 0.3], 0.1), ([0.1] * 300, 1e-3), ([0.9, 0.8], 0.9), ([0.1], 0.0)])
def test_one_class_stays_where_none_of_the_other_is_expected_beside_it(probs, prior):
    pool = rated_of(probs)
    assert (balance(pool, all_of(pool), prior) == "").all()


@pytest.mark.parametrize("prior", [0.0, 0.4, 1.0])
def test_where_nothing_is_left_there_is_nothing_to_leave_out(prior):
    pool = rated_of([0.9, 0.1])
    assert (balance(pool, ~all_of(pool), prior) == "").all()


def test_one_class_keeps_nothing_where_a_patch_of_the_other_would_come_nearer_to_the_prior():
    pool = rated_of([0.1] * 300)
    assert (balance(pool, all_of(pool), 2e-3) != "").all()


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_a_prior_of_one_class_alone(prior):
    pool = rated_of([0.9, 0.8, 0.1, 0.2])
    assert staying(pool, balance(pool, all_of(pool), prior)) == ("ab" if prior else "cd")


def test_only_candidates_count():
    pool = rated_of([0.9, 0.8, 0.1, 0.2])
    reasons = balance(pool, np.array([True, False, True, False]), 0.5)
    assert (reasons == "").all()


def test_the_count_is_the_one_whose_share_is_nearest():
    # Beside one normal patch, two tumor patches make 0.667 and one makes 0.5: the first is nearer 0.6.
    pool = rated_of([0.9, 0.8, 0.7, 0.1])
    assert staying(pool, balance(pool, all_of(pool), 0.6)) == "abd"
