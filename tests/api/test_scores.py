"""Scores, intervals, thresholds and folds of anyone's predictions."""

import numpy as np
import pandas as pd
import pytest

import pcam_ssl as pcam
from pcam_ssl.evaluation.bootstrap import intervals, paired_differences


@pytest.fixture
def known():
    """Labels, probs and slides of 200 patches of 10 slides."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    probs = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.2 * rng.normal(size=200), 0.01, 0.99)
    return labels, probs, np.repeat([f"slide-{k}" for k in range(10)], 20)


def test_scores_are_the_slide_clustered_ones(known):
    labels, probs, slides = known
    found, by_hand = pcam.scores(labels, probs, slides, resamples=200), intervals(labels, probs, slides, 200)
    assert {name: (score.value, score.low, score.high) for name, score in found.items()} == {
        name: (score["value"], score["low"], score["high"]) for name, score in by_hand.items()
    }
    assert (found.resampled, len(found.per_slide)) == ("slides", 10)


def test_scores_without_slides_say_that_patches_were_resampled(known):
    labels, probs, _ = known
    assert str(pcam.scores(labels, probs, resamples=100)["auroc"]).endswith("patches resampled")


def test_unknown_labels_are_left_out(known):
    labels, probs, slides = known
    some = [None if number % 4 == 0 else int(label) for number, label in enumerate(labels)]
    found = pcam.scores(some, probs, slides, resamples=100)
    assert (found.report["n"], found.report["n_unlabelled"]) == (150, 50)


def test_columns_of_a_table_are_taken_by_position(known):
    labels, probs, slides = known
    frame = pd.DataFrame({"label": labels, "prob": probs, "wsi": slides}, index=np.arange(200)[::-1])
    frame["label"] = frame.label.astype("Int8")
    found = pcam.scores(frame.label, frame.prob, frame.wsi, resamples=100)
    assert found["auroc"].value == pcam.scores(labels, probs, slides, resamples=100)["auroc"].value


def test_one_class_has_no_auroc_and_says_so():
    score = pcam.scores([1, 1], [0.2, 0.9], ["a", "b"], resamples=100)["auroc"]
    assert score.value is None and np.isnan(float(score)) and str(score).startswith("-")


def test_bootstrap_intervals_of_one_and_of_a_difference(known):
    labels, probs, slides = known
    other = np.clip(probs + 0.1 * labels, 0, 1)
    found = pcam.bootstrap_intervals(labels, other, slides, against=probs, resamples=200)
    by_hand = paired_differences(labels, probs, other, slides, 200)
    assert (found["auroc"].value, found["auroc"].low) == (by_hand["auroc"]["value"], by_hand["auroc"]["low"])
    assert (
        pcam.bootstrap_intervals(labels, probs, slides, resamples=200)["auroc"].value
        == intervals(labels, probs, slides, 200)["auroc"]["value"]
    )


def test_thresholds_need_three_columns(known):
    labels, probs, slides = known
    frame = pd.DataFrame({"label": labels, "prob": probs, "wsi": slides})
    assert set(pcam.thresholds(frame, precision=0.6, level=0.8)) == {0, 1}
    with pytest.raises(pcam.UserError, match="wsi"):
        pcam.thresholds(frame.drop(columns="wsi"))


def test_folds_keep_slides_whole(slides):
    frame = pcam.make_folds(slides, n_folds=3).frame
    assert (frame.groupby("wsi").fold.nunique() == 1).all() and frame.fold.nunique() == 3
    pd.testing.assert_frame_equal(frame, pcam.make_folds(pcam.open_dataset(slides).patches, n_folds=3).frame)


def test_settings_are_a_dict_or_lines():
    by_dict = pcam.recipe("smoke", {"train.epochs": 2, "model.name": "resnet34", "optim.lr": 1e-5, "pseudo.precision": None})
    by_lines = pcam.recipe("smoke", ["train.epochs=2", "model.name=resnet34", "optim.lr=1e-5", "pseudo.precision=null"])
    assert by_dict == by_lines
    assert pcam.recipe(by_dict, {"train.epochs": np.int64(3)}).train.epochs == 3
