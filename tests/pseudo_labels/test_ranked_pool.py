import numpy as np
from pools import pool_of

from pcam_ssl.evaluation.metrics import predicted_class
from pcam_ssl.pseudo_labels.selectors import most_confident_within, ranked_pool, share_of


def test_half_is_called_tumor():
    assert predicted_class([0.49, 0.5, 1.0]).tolist() == [0, 1, 1]


def test_most_confident_is_farthest_from_half_then_of_larger_logit_then_first_by_id():
    pool = pool_of([0.75, 1.0, 1.0, 0.0, 0.0], logit=[1.0, 30.0, 40.0, -30.0, -50.0])
    rank = ranked_pool(pool).set_index("id")["rank"]
    assert "".join(rank.sort_values().index) == "ecbda"


def test_rank_does_not_depend_on_the_order_of_rows():
    pool = pool_of([0.75, 0.25, 0.75, 0.25])
    backwards = ranked_pool(pool.iloc[::-1].reset_index(drop=True)).set_index("id")["rank"]
    assert ranked_pool(pool).set_index("id")["rank"].equals(backwards.sort_index())


def test_place_within_groups():
    assert most_confident_within([7, 3, 7, 7, 3], np.array([5, 4, 1, 9, 2])).tolist() == [1, 1, 0, 2, 0]


def test_place_within_no_groups():
    assert most_confident_within([], np.array([])).tolist() == []


def test_share_of_in_spite_of_rounding():
    assert share_of(0.29, 100) == 29
    assert share_of(0.5, 1) == 0
