"""The contents of scores.json: counts, scores per fold and slide, and the description of the interval."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pcam_ssl.evaluation.metrics import point_scores
from pcam_ssl.evaluation.scores import interval_text, score_report
from pcam_ssl.tables import predictions

N = 120


@pytest.fixture(scope="module")
def frame():
    """Twelve slides of ten patches in three folds; slide s00 has no tumor; every tenth row has no label; calibrated at T = 2."""
    rng = np.random.default_rng(0)
    slides = np.array([f"s{i // 10:02d}" for i in range(N)])
    truth = rng.integers(2, size=N) * (slides != "s00")
    logits = 3 * (truth - 0.5) + rng.normal(size=N)
    labels = [None if i % 10 == 9 else int(label) for i, label in enumerate(truth)]
    made = predictions([f"p{i}" for i in range(N)], labels, slides, 0, logits, probs=expit(logits / 2))
    made["fold"] = pd.array([i // 40 for i in range(N)], dtype="Int8")
    return made


@pytest.fixture(scope="module")
def report(frame):
    return score_report(frame, frame.wsi, resamples=200)


@pytest.fixture(scope="module")
def labelled(frame):
    return frame[frame.label.notna()].astype({"label": "int64"})


def test_the_mean_within_folds_stands_beside_the_pooled_score(report, labelled):
    own = [roc_auc_score(rows.label, rows.prob) for _, rows in labelled.groupby("fold")]
    found = report["within_folds"]["auroc"]
    assert (found["value"], found["folds"]) == (pytest.approx(np.mean(own)), 3)
    assert found["low"] < found["value"] < found["high"]


def test_slides_of_each_class_are_counted(report, labelled):
    of_class = labelled.groupby("label").wsi.nunique()
    assert of_class[1] == 11  # s00 has no tumor
    assert (report["n_slides"], report["n_slides_tumor"], report["n_slides_normal"]) == (12, of_class[1], of_class[0])


def test_counts(report, labelled):
    assert {key: report[key] for key in ("n", "n_positive", "n_slides", "n_unlabelled")} == {
        "n": 108,
        "n_positive": labelled.label.sum(),
        "n_slides": 12,
        "n_unlabelled": 12,
    }


def test_values_are_the_point_scores_of_labelled_rows(report, labelled):
    expected = point_scores(labelled.label.to_numpy(), labelled.prob.to_numpy())
    assert {name: entry["value"] for name, entry in report["scores"].items()} == expected


def test_before_calibration_is_the_sigmoid_of_the_logit(report, labelled):
    expected = point_scores(labelled.label.to_numpy(), expit(labelled.logit.to_numpy()))["nll"]
    assert report["scores_before_calibration"]["nll"]["value"] == expected != report["scores"]["nll"]["value"]


def test_uncalibrated_logits_replace_the_column(frame, labelled):
    found = score_report(frame, frame.wsi, resamples=5, uncalibrated_logits=4 * frame.logit)["scores_before_calibration"]
    assert found["nll"]["value"] == point_scores(labelled.label.to_numpy(), expit(4 * labelled.logit.to_numpy()))["nll"]


def test_per_fold(report, labelled):
    first = labelled[labelled.fold == 0]
    assert [entry["fold"] for entry in report["per_fold"]] == [0, 1, 2]
    assert report["per_fold"][0] == {
        "fold": 0,
        "n": 36,
        "n_positive": first.label.sum(),
        "n_slides": 4,
        "n_slides_tumor": first[first.label == 1].wsi.nunique(),
        "n_slides_normal": first[first.label == 0].wsi.nunique(),
        "scores": point_scores(first.label.to_numpy(), first.prob.to_numpy()),
    }


def test_a_slide_of_one_class_has_all_scores_but_auroc(report):
    first = report["per_slide"][0]
    assert (first["wsi"], first["n"], first["n_positive"]) == ("s00", 9, 0)
    assert first["scores"]["auroc"] is None
    assert set(first["scores"]) == {"auroc", "accuracy", "nll", "brier", "mean_prob"}


def test_each_slide_is_listed_once(report):
    assert [entry["wsi"] for entry in report["per_slide"]] == [f"s{i:02d}" for i in range(12)]


def test_is_plain_json(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_without_slides_patches_are_resampled_and_it_says_so(frame):
    report = score_report(frame.assign(wsi=pd.array([None] * N, dtype="str")), None, resamples=50)
    assert (report["n_slides"], report["per_slide"]) == (None, [])
    assert report["interval"] == (
        "95 %, Student's t on 50 resamples of patches; no slide ids, so too narrow where patches share a slide"
    )


def test_without_labels_there_are_no_scores(frame):
    report = score_report(frame.assign(label=pd.array([None] * N, dtype="Int8")), None, resamples=50)
    assert (report["n"], report["n_unlabelled"], report["interval"]) == (0, N, "none: 0 labelled patches")
    assert {entry["value"] for entry in report["scores"].values()} == {None}


@pytest.mark.parametrize(
    ("groups", "unit", "text"),
    [
        (np.arange(40), "slide", "95 %, Student's t on 2000 resamples of 40 slides"),
        (np.arange(40) % 12, "stain cluster", "95 %, Student's t on 2000 resamples of 12 stain clusters"),
        (
            np.arange(40) % 20,
            "slide",
            "95 %, Student's t on 2000 resamples of 20 slides; only 3 hold the rarer class, and all rests on them",
        ),
        (np.arange(40) % 38, "slide", "none: of 38 slides 1 holds the rarer class, so no spread can be seen"),
        (np.zeros(40), "slide", "none: one slide only, nothing to resample"),
    ],
)
def test_the_interval_is_described(groups, unit, text):
    few = {20: [1, 2, 3], 38: [1]}.get(len(set(groups)))
    labels = None if few is None else np.isin(np.arange(40), few).astype(int)
    assert interval_text(groups, 40, 2000, unit, labels) == text
