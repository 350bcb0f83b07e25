import numpy as np
import pytest
from pools import all_of, rated_of, staying

from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.selectors import agreement, confidence, precision, view_std
from pcam_ssl.pseudo_labels.thresholds import Threshold


def test_precision_leaves_what_is_not_beyond_the_threshold_of_its_class():
    pool = rated_of([0.95, 0.85, 0.6, 0.3, 0.05])
    reasons = precision(pool, all_of(pool), {1: Threshold(1, 0.85, ""), 0: Threshold(0, 0.1, "")}, 0.98)
    assert staying(pool, reasons) == "abe"
    assert reasons[2] == "prob 0.6 is below 0.85, from where a precision of 0.98 is proven for tumor"
    assert reasons[3] == "prob 0.3 is above 0.1, from where a precision of 0.98 is proven for normal"


def test_a_class_without_threshold_loses_all_its_patches():
    pool = rated_of([0.95, 0.05])
    reasons = precision(pool, all_of(pool), {1: Threshold(1, None, "", bound=0.9345), 0: Threshold(0, 0.1, "")}, 0.98)
    assert reasons.tolist() == ["no threshold proves a precision of 0.98 for tumor (best bound 0.934)", ""]


def test_confidence_takes_both_tails_and_not_their_ends():
    pool = rated_of([0.95, 0.9, 0.5, 0.1, 0.05])
    reasons = confidence(pool, all_of(pool), 0.9)
    assert staying(pool, reasons) == "ae"
    assert reasons[2] == "prob 0.5 is between 0.1 and 0.9 (pseudo.confidence)"


def test_confidence_tails_mirror_each_other():
    upper = np.linspace(0.51, 0.99, 49)
    both = [confidence(pool, all_of(pool), 0.75) == "" for pool in (rated_of(upper), rated_of(1 - upper))]
    assert both[0].tolist() == both[1].tolist()


def test_view_std_leaves_out_what_differs_more():
    pool = rated_of([0.9, 0.9, 0.9], view_std=[0.5, 1.5, 1.6])
    assert view_std(pool, all_of(pool), 1.5).tolist() == ["", "", "views differ by 1.6, above 1.5 (pseudo.view_std)"]


def test_agreement_leaves_out_disagreement_and_missing_knn_probs():
    pool = rated_of([0.9, 0.9, 0.1, 0.1, 0.9], knn_prob=[0.6, 0.4, 0.4, 0.5, np.nan])
    reasons = agreement(pool, all_of(pool))
    assert staying(pool, reasons) == "ac"
    assert reasons[1] == "kNN prob 0.4 calls the other class (pseudo.agreement)"
    assert reasons[4] == "kNN gives no prob (pseudo.agreement)"


def test_agreement_without_knn_is_refused_with_the_next_step():
    pool = rated_of([0.9])
    with pytest.raises(UserError) as error:
        agreement(pool, all_of(pool))
    assert str(error.value) == (
        "pseudo.agreement=true needs kNN probs and the round before has none; "
        "start from a run with neighbours.use=true or a metric-train run, or set pseudo.agreement=false"
    )


def test_what_was_no_candidate_gets_no_reason():
    pool = rated_of([0.6, 0.6], knn_prob=[0.1, 0.1], view_std=[9, 9])
    stays = np.array([False, True])
    thresholds = {1: Threshold(1, 0.9, ""), 0: Threshold(0, None, "")}
    for reasons in (
        precision(pool, stays, thresholds, 0.9),
        confidence(pool, stays, 0.9),
        view_std(pool, stays, 1),
        agreement(pool, stays),
    ):
        assert (reasons != "").tolist() == [False, True]
