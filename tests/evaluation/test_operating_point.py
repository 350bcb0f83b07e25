"""Thresholds, outcomes and their scores, by hand."""

import numpy as np
import pytest

from pcam_ssl.evaluation.metrics import sensitivity_at_specificity, specificity_at_sensitivity
from pcam_ssl.evaluation.operating_point import OUTCOMES, Target, choose_threshold, outcome_scores, outcomes

LABELS = np.array([0, 0, 1, 0, 1, 1, 1])
PROBS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


@pytest.mark.parametrize(
    ("measure", "share", "threshold"),
    [
        ("sensitivity", 1.0, 0.3),
        ("sensitivity", 0.76, 0.3),
        ("sensitivity", 0.75, 0.5),
        ("sensitivity", 0.01, 0.7),
        ("specificity", 1.0, 0.5),
        ("specificity", 2 / 3, 0.3),
        ("specificity", 0.5, 0.3),
    ],
)
def test_the_threshold_meets_the_target_with_the_other_measure_highest(measure, share, threshold):
    assert choose_threshold(LABELS, PROBS, Target(measure, share)) == threshold


def test_where_the_highest_prob_is_not_tumor_full_specificity_calls_nothing():
    assert choose_threshold([1, 0], [0.4, 0.9], Target("specificity", 1.0)) == np.inf


def test_the_target_is_met_on_the_rows_it_is_chosen_on():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=500)
    probs = np.round(1 / (1 + np.exp(-labels - rng.normal(size=500))), 2)
    called = probs >= choose_threshold(labels, probs, Target("sensitivity", 0.9))
    assert called[labels == 1].mean() >= 0.9
    assert (~called)[labels == 0].mean() == specificity_at_sensitivity(labels, probs, 0.9)
    called = probs >= choose_threshold(labels, probs, Target("specificity", 0.9))
    assert (~called)[labels == 0].mean() >= 0.9
    assert called[labels == 1].mean() == sensitivity_at_specificity(labels, probs, 0.9)


def test_a_target_in_words():
    assert Target("specificity", 0.985).text == "specificity of 98.5%"


def test_every_outcome_by_its_name():
    named = [OUTCOMES[cell] for cell in outcomes([1, 1, 0, 0], [True, False, True, False])]
    assert named == ["true positive", "false negative", "false positive", "true negative"]


def test_scores_by_hand():
    cells = np.repeat([0, 1, 2, 3], [6, 2, 3, 9])
    scores = outcome_scores(cells, None)
    assert {name: score["value"] for name, score in scores.items()} == {
        "sensitivity": 0.75,
        "specificity": 0.75,
        "precision": pytest.approx(2 / 3),
        "false_positives_per_1000": 150,
    }


def test_intervals_come_from_whole_slides():
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(20), 50)
    cells = np.where(rng.random(20)[slides] < 0.7, 0, 1)  # a slide's tumor is found as a whole, or missed
    cells[::2] = 3  # each slide has normal patches too
    together, apart = (outcome_scores(cells, groups)["sensitivity"] for groups in (slides, None))
    assert together["high"] - together["low"] > 3 * (apart["high"] - apart["low"])
    assert together["low"] < together["value"] < together["high"]


def test_scores_undefined_with_one_class_are_none():
    scores = outcome_scores(np.array([3, 3, 3]), ["a", "b", "b"])
    assert scores["sensitivity"] == {"value": None, "low": None, "high": None}
    assert scores["precision"]["value"] is None
    assert scores["specificity"]["value"] == 1


def test_one_slide_has_no_interval():
    assert outcome_scores(np.array([0, 1]), ["a", "a"])["sensitivity"] == {"value": 0.5, "low": None, "high": None}
