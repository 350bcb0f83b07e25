import pandas as pd
import pytest

from pcam_ssl.evaluation.confidence import share_interval
from pcam_ssl.pseudo_labels.precision_check import added_scores


def decisions(labels, fold=0, ids=None, probs=None):
    columns = {"id": ids or [f"p{n}" for n in range(len(labels))], "fold": fold, "label": pd.array(labels, dtype="float64")}
    return pd.DataFrame({**columns, "prob": probs or 0.5})


def truth(labels, slides=None):
    columns = {"id": [f"p{n}" for n in range(len(labels))], "label": pd.array(labels, dtype="Int8")}
    return pd.DataFrame({**columns, "wsi": pd.array(slides or [None] * len(labels), dtype="str")})


ADDED = decisions([1, 1, 1, 0, None, None])
TRUE = truth([1, 1, 0, 0, 1, 0])


def test_precision_by_class():
    precision = added_scores(ADDED, TRUE)["precision"]
    assert {name: (score["right"], score["n"]) for name, score in precision.items()} == {
        "normal": (1, 1),
        "tumor": (2, 3),
        "all": (3, 4),
    }
    assert precision["tumor"]["value"] == pytest.approx(2 / 3)


def test_beside_it_stands_what_the_probs_promised():
    predicted = added_scores(decisions([1, 1, 0, None], probs=[0.9, 0.7, 0.2, 0.5]), truth([1, 0, 0, 1]))["predicted"]
    assert predicted == {"tumor": pytest.approx(0.8), "normal": pytest.approx(0.8), "all": pytest.approx(0.8)}
    assert added_scores(decisions([1], probs=[0.9]), truth([1]))["predicted"]["normal"] is None


def test_coverage_is_the_share_added_with_whatever_label():
    coverage = added_scores(ADDED, TRUE)["coverage"]
    assert {name: (score["right"], score["n"]) for name, score in coverage.items()} == {
        "normal": (2, 3),
        "tumor": (2, 3),
        "all": (4, 6),
    }


def test_counts_of_labelled_patches():
    scores = added_scores(ADDED, truth([1, None, 0, 0, None, 0]))
    assert (scores["known"], scores["added"]) == (4, 3)
    assert (scores["precision"]["tumor"]["right"], scores["precision"]["tumor"]["n"]) == (1, 2)


def test_ids_are_joined_not_rows():
    assert added_scores(ADDED, TRUE.iloc[::-1]) == added_scores(ADDED, TRUE)


def test_soft_labels_count_by_their_side():
    assert added_scores(decisions([0.9, 0.3]), truth([1, 1]))["precision"]["all"]["value"] == 0.5


def test_intervals_are_clustered_by_slide():
    labels, slides = [1] * 8 + [0] * 4, list("aaaabbbbcccc")
    score = added_scores(decisions([1] * 12), truth(labels, slides))["precision"]["tumor"]
    expected = share_interval([True] * 8 + [False] * 4, slides)
    assert (score["low"], score["high"]) == (expected["low"], expected["high"])
    assert score["low"] < share_interval([True] * 8 + [False] * 4)["low"]


def test_a_patch_in_several_folds_is_one_piece_of_evidence():
    once = decisions([1] * 20)
    folds = pd.concat([decisions([1] * 20, fold=fold) for fold in range(3)])
    labels = truth([1] * 15 + [0] * 5)
    one, three = added_scores(once, labels)["precision"]["all"], added_scores(folds, labels)["precision"]["all"]
    assert (three["right"], three["n"]) == (45, 60)
    assert three["low"] == pytest.approx(one["low"], abs=0.02)


def test_level_widens():
    narrow, wide = (added_scores(ADDED, TRUE, level)["precision"]["all"] for level in (0.8, 0.99))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_without_labels_scores_are_none_with_the_reason():
    score = added_scores(ADDED, truth([None] * 6))["precision"]["tumor"]
    assert (score["value"], score["reason"]) == (None, "no label of the pool is known")


def test_nothing_added_is_none_with_the_reason():
    scores = added_scores(decisions([None, None]), truth([1, 1]))
    assert scores["precision"]["tumor"]["reason"] == "no tumor patch was added with a known label"
    assert scores["coverage"]["normal"]["reason"] == "no normal patch is in the pool with a known label"
    assert scores["coverage"]["tumor"]["value"] == 0
    assert scores["precision"]["all"]["reason"] == "no patch was added with a known label"


def test_a_patch_that_stands_twice_in_the_truth_counts_once():
    assert added_scores(ADDED, pd.concat([TRUE, TRUE])) == added_scores(ADDED, TRUE)
