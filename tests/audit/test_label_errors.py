import numpy as np
import pytest
from scipy.special import logit

from pcam_ssl.audit.audit import suspicious_labels
from pcam_ssl.tables import predictions


def opinion(**probs):
    """Predictions of patches whose name begins with their label, such as p1 or n1; `u` is unlabelled."""
    labels = [{"p": 1, "n": 0, "u": None}[name[0]] for name in probs]
    values = np.array(list(probs.values()))
    return predictions(list(probs), labels, ["s"] * len(probs), 0, logit(values.clip(1e-12, 1 - 1e-12)), probs=values)


def test_doubt_is_the_product_of_the_probs_of_the_other_class():
    found = suspicious_labels(opinion(p1=0.1, n1=0.7), opinion(n1=0.9, p1=0.2))
    assert found["id"].tolist() == ["p1", "n1"]
    assert found["doubt"].tolist() == pytest.approx([0.9 * 0.8, 0.7 * 0.9])
    assert found["loss"].tolist() == pytest.approx([-np.log(0.1), -np.log(0.3)])


def test_a_label_that_one_prediction_supports_is_not_suspicious():
    assert suspicious_labels(opinion(p1=0.01, n1=0.6), opinion(p1=0.5, n1=0.4)).empty


def test_without_neighbours_the_network_judges_alone():
    found = suspicious_labels(opinion(p1=0.4, p2=0.6, n1=0.9))
    assert found[["id", "doubt"]].to_numpy().tolist() == [["n1", 0.9], ["p1", pytest.approx(0.6)]]
    assert found["doubt_knn"].isna().all()


def test_unlabelled_patches_are_left_out():
    assert suspicious_labels(opinion(u1=0.9, n1=0.9))["id"].tolist() == ["n1"]


def test_equal_doubts_stand_in_order_of_id_and_a_sure_wrong_prob_has_a_finite_loss():
    found = suspicious_labels(opinion(p2=0.0, p1=0.0))
    assert found["id"].tolist() == ["p1", "p2"]
    assert np.isfinite(found["loss"]).all()
