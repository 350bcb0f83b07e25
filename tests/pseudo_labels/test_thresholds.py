"""Thresholds on inner tables small enough to count."""

import numpy as np
import pandas as pd
import pytest
from pools import inner_of
from scipy.special import expit

from pcam_ssl.evaluation.confidence import share_interval
from pcam_ssl.pseudo_labels.thresholds import Threshold, precision_thresholds


def inner(rows) -> pd.DataFrame:
    """From (prob, label, how many); no slides."""
    probs, labels, counts = zip(*rows, strict=True)
    frame = pd.DataFrame({"label": pd.array(np.repeat(labels, counts), dtype="Int8"), "prob": np.repeat(probs, counts)})
    return frame.assign(wsi=pd.array([None] * len(frame), dtype="str"))


def test_threshold_nearest_half_at_which_the_bound_reaches_the_target():
    # 30 of 30 prove 0.9 (0.05^(1/30) = 0.905), 60 of 61 too (0.924); 60 of 66 do not.
    table = inner([(0.99, 1, 30), (0.9, 1, 30), (0.9, 0, 1), (0.6, 0, 5), (0.2, 0, 5)])
    tumor = precision_thresholds(table, 0.9, 0.95)[1]
    assert (tumor.prob, tumor.right, tumor.n, tumor.slides) == (0.9, 60, 61, None)
    assert tumor.bound == pytest.approx(share_interval([True] * 60 + [False], None, 0.9)["low"])


def test_normal_is_the_mirror_of_tumor():
    rows = [(0.96875, 1, 30), (0.875, 1, 30), (0.875, 0, 1), (0.625, 0, 5), (0.25, 0, 40)]
    direct = precision_thresholds(inner(rows), 0.9, 0.95)
    mirrored = precision_thresholds(inner([(1 - prob, 1 - label, n) for prob, label, n in rows]), 0.9, 0.95)
    for label in (0, 1):
        assert mirrored[1 - label].prob == 1 - direct[label].prob
        assert mirrored[1 - label].bound == direct[label].bound


def test_equal_probs_stand_or_fall_together():
    # In a lucky order the first 40 of the 50 would prove it.
    table = inner([(0.9, 1, 40), (0.9, 0, 10), (0.1, 0, 40)])
    assert precision_thresholds(table, 0.9, 0.95)[1].prob is None


def test_without_a_threshold_the_reason_has_the_best_bound_and_the_next_step():
    tumor = precision_thresholds(inner_of({1: 42, 0: 10}, {1: 1}, slides=6), 0.98, 0.95)[1]
    bound = np.floor(tumor.bound * 1000) / 1000
    assert tumor.prob is None
    assert tumor.reason == (
        f"tumor: no threshold proves a precision of 0.98; the best bound is {bound:g}, at prob 0.9 (42 of 43 right on 6 inner slides); "
        f"set pseudo.precision to {bound:g} or less, label more slides, or raise cv.inner_share where folds do not cross-fit"
    )


def test_the_target_it_offers_is_reached():
    table = inner_of({1: 42, 0: 10}, {1: 1}, slides=6)
    offered = np.floor(precision_thresholds(table, 0.98, 0.95)[1].bound * 1000) / 1000
    assert precision_thresholds(table, offered, 0.95)[1].prob == 0.9


def test_a_bound_below_half_offers_no_target():
    normal = precision_thresholds(inner_of({1: 10, 0: 1}, {}, slides=4), 0.98, 0.95)[0]
    assert normal.reason == (
        "normal: no threshold proves a precision of 0.98; the best bound is 0.05, at prob 0.1 (1 of 1 right on 1 inner slide); "
        "label more slides, or raise cv.inner_share where folds do not cross-fit"
    )


def test_the_reason_of_a_threshold_has_bound_and_counts():
    tumor = precision_thresholds(inner_of({1: 60, 0: 10}, {}), 0.9, 0.95)[1]
    assert tumor.reason == "tumor: a precision of 0.9 is proven at prob 0.9 or more (bound 0.951; 60 of 60 right, slides unknown)"


def test_one_class_proves_nothing_however_right():
    found = precision_thresholds(inner_of({1: 500}, {}), 0.9, 0.95)
    assert [found[label].prob for label in (0, 1)] == [None, None]
    assert found[1].reason == (
        "tumor: the inner slides hold tumor patches only (500), so no precision can be proven; "
        "label more slides, or raise cv.inner_share where folds do not cross-fit, or change seed"
    )


def test_no_labelled_inner_patch():
    table = inner_of({1: 5}, {}).assign(label=pd.array([None] * 5, dtype="Int8"))
    assert precision_thresholds(table, 0.9, 0.95)[0].reason == (
        "normal: no inner slide has a labelled patch, so no precision can be proven; label more slides, or raise cv.inner_share where folds do not cross-fit"
    )


def test_no_inner_patch_is_called_so():
    reason = precision_thresholds(inner_of({0: 20}, {0: 3}), 0.9, 0.95)[1].reason
    assert reason.startswith("tumor: no inner patch is called tumor")


def test_beyond_is_on_the_own_side_and_holds_the_threshold():
    probs = [0.1, 0.2, 0.5, 0.8, 0.9]
    assert Threshold(1, 0.8, "").beyond(probs).tolist() == [False, False, False, True, True]
    assert Threshold(0, 0.2, "").beyond(probs).tolist() == [True, True, False, False, False]
    assert not Threshold(0, None, "").beyond(probs).any()


def test_a_prob_of_half_is_tumor_for_either_threshold():
    assert Threshold(1, 0.5, "").beyond([0.5]).all()
    assert not Threshold(0, 0.5, "").beyond([0.5]).any()


def test_chosen_thresholds_keep_their_promise_on_new_slides():
    rng = np.random.default_rng(1)

    def slides_of(n_slides, patches):
        labels = rng.integers(2, size=(n_slides, patches))
        scores = 1.5 * (2 * labels - 1) + rng.normal(size=labels.shape) + 0.3 * rng.normal(size=(n_slides, 1))
        names = np.repeat(np.arange(n_slides), patches).astype(str)
        return pd.DataFrame({"label": pd.array(labels.ravel(), dtype="Int8"), "wsi": names, "prob": expit(3 * scores.ravel())})

    world, missed = slides_of(2000, 100), 0
    for _ in range(100):
        tumor = precision_thresholds(slides_of(25, 200), 0.95, 0.95)[1]
        missed += (world.label == 1)[tumor.beyond(world.prob)].mean() < 0.95
    assert missed / 100 <= 0.1


def test_what_stands_in_for_slides_is_named():
    tumor = precision_thresholds(inner_of({1: 42, 0: 10}, {1: 1}, slides=6), 0.98, 0.95, "stain cluster")[1]
    assert "(42 of 43 right on 6 inner stain clusters)" in tumor.reason
