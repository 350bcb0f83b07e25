"""Scores against hand-computed cases and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from pcam_ssl.evaluation import metrics

# Falling prob: tumor, tumor, other, tumor, other.
LABELS = np.array([1, 1, 0, 1, 0])
PROBS = np.array([0.9, 0.8, 0.7, 0.4, 0.1])


@pytest.fixture
def noisy():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=500)
    return labels, np.round(np.clip(0.3 * labels + rng.uniform(0, 0.7, size=500), 0, 1), 2)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("auroc", 5 / 6),
        ("average_precision", (1 + 1 + 3 / 4) / 3),
        ("accuracy", 3 / 5),
        ("balanced_accuracy", (2 / 3 + 1 / 2) / 2),
        ("f1", 2 / 3),
        ("nll", -np.log(0.9 * 0.8 * 0.3 * 0.4 * 0.9) / 5),
        ("brier", (0.01 + 0.04 + 0.49 + 0.36 + 0.01) / 5),
        ("ece", (0.1 + 0.2 + 0.7 + 0.6 + 0.1) / 5),
        ("sensitivity_at_specificity_90", 2 / 3),
        ("specificity_at_sensitivity_95", 1 / 2),
    ],
)
def test_by_hand(name, by_hand):
    assert metrics.point_scores(LABELS, PROBS)[name] == pytest.approx(by_hand)


def test_names_are_the_documented_ones():
    assert list(metrics.point_scores(LABELS, PROBS)) == [
        "auroc",
        "average_precision",
        "accuracy",
        "balanced_accuracy",
        "f1",
        "nll",
        "brier",
        "ece",
        "sensitivity_at_specificity_90",
        "sensitivity_at_specificity_95",
        "sensitivity_at_specificity_98",
        "specificity_at_sensitivity_95",
    ]


@pytest.mark.parametrize(
    ("score", "reference"),
    [
        (metrics.accuracy, sklearn_metrics.accuracy_score),
        (metrics.balanced_accuracy, sklearn_metrics.balanced_accuracy_score),
        (metrics.f1, sklearn_metrics.f1_score),
    ],
)
def test_scores_at_one_half_equal_scikit_learn(noisy, score, reference):
    labels, probs = noisy
    assert score(labels, probs) == pytest.approx(reference(labels, probs >= 0.5))


def test_nll_equals_scikit_learn(noisy):
    assert metrics.nll(*noisy) == pytest.approx(sklearn_metrics.log_loss(*noisy))


def test_brier_equals_scikit_learn(noisy):
    assert metrics.brier(*noisy) == pytest.approx(sklearn_metrics.brier_score_loss(*noisy))


def test_ece_groups_rows_into_fifteen_bins():
    # Bin 7 of 15 spans 0.467 to 0.533: mean prob 0.5, tumor share 1/2. Alone in their bins, the two rows would count 0.49 each.
    assert metrics.ece([1, 0], [0.49, 0.51]) == pytest.approx(0)


def test_prob_one_falls_in_the_last_calibration_bin():
    assert metrics.ece_bin(np.array([0.0, 0.999, 1.0])).tolist() == [0, 14, 14]


def test_specificity_met_exactly_counts_as_met():
    # 20 other patches, one above every tumor patch: specificity 19/20 is the bar of 0.95 itself.
    labels = [0] + [1] * 4 + [0] * 19
    assert metrics.sensitivity_at_specificity(labels, np.linspace(1, 0, 24), 0.95) == 1.0


def test_sensitivity_is_zero_where_no_threshold_is_specific_enough():
    assert metrics.sensitivity_at_specificity([0, 1], [0.9, 0.1], 0.9) == 0.0


def test_a_confident_mistake_has_a_finite_nll():
    assert metrics.nll([1], [0.0]) == pytest.approx(-np.log(np.finfo(float).eps))


@pytest.mark.parametrize(
    ("label", "defined"),
    [(0, {"accuracy", "nll", "brier", "ece"}), (1, {"accuracy", "f1", "nll", "brier", "ece"})],
)
def test_one_class_leaves_the_others_none(label, defined):
    scores = metrics.point_scores([label] * 3, [0.2, 0.6, 0.7])
    assert {name for name, value in scores.items() if value is not None} == defined


def test_no_rows_define_nothing():
    assert set(metrics.point_scores([], []).values()) == {None}
