"""The table of scores as text."""

import pytest

from pcam_ssl.evaluation.metrics import point_scores
from pcam_ssl.render.format import NAMES, counts_text, score_table


def report(value, low, high):
    """A `score_report` with the same entry under every name."""
    return {
        "n": 1243,
        "n_positive": 447,
        "n_slides": 34,
        "n_slides_tumor": 21,
        "n_slides_normal": 31,
        "n_unlabelled": 0,
        "interval": "95 %, Student's t on 2000 resamples of 34 slides",
        "within_folds": {"auroc": {"value": value, "low": low, "high": high, "folds": 5}},
        "scores": {name: {"value": value, "low": low, "high": high} for name in NAMES},
    }


def test_every_score_has_a_line():
    assert list(NAMES) == list(point_scores([0, 1], [0.1, 0.9]))


def test_a_score_its_interval_and_the_colour_baseline_stand_in_one_line():
    lines = score_table(report(0.9651, 0.951, 0.9772), "out of fold", floor=report(0.8, 0.75, 0.85)).splitlines()
    assert lines[:4] == [
        "out of fold: 1,243 patches (447 tumor) of 34 slides, 21 with tumor",
        "                                 score  95 % interval   colour  95 % interval",
        "AUROC                            0.965  0.951 to 0.977  0.800   0.750 to 0.850",
        "AUROC, mean within folds         0.965  0.951 to 0.977  0.800   0.750 to 0.850",
    ]
    assert lines[-1] == "interval: 95 %, Student's t on 2000 resamples of 34 slides"


def test_without_a_colour_baseline_there_is_no_column_for_it():
    assert "colour" not in score_table(report(0.9, 0.8, 0.95), "out of fold")


@pytest.mark.parametrize("floor", [None, report(0.8, 0.75, 0.85)])
def test_fits_eighty_columns(floor):
    scores = report(0.9, 0.8, 0.95) | {"interval": "many words " * 20, "n_unlabelled": 100_000}
    assert max(map(len, score_table(scores, "held out " * 4, floor).splitlines())) <= 80


def test_a_value_without_interval_stands_alone():
    assert "AUROC                            0.900\n" in score_table(report(0.9, None, None), "out of fold")


def test_an_undefined_score_is_a_dash_and_explained():
    text = score_table(report(None, None, None), "out of fold")
    assert "AUROC                            -\n" in text
    assert text.endswith("- : not defined, because a class is absent")


def test_holds_no_terminal_codes():
    assert "\x1b" not in score_table(report(0.9, 0.8, 0.95), "out of fold")


def test_unknown_slides_and_hidden_labels_are_said():
    scores = report(0.9, 0.8, 0.95) | {"n_slides": None, "n_unlabelled": 5}
    assert counts_text(scores) == "1,243 patches (447 tumor), slides unknown; 5 without label left out"
