"""Means of centre shares, right against wrong, by hand."""

import numpy as np
import pytest

from pcam_ssl.evaluation.confidence import PLAIN, count_groups, student_interval
from pcam_ssl.explain.centre import centre_means

SHARES = np.array([0.2, 0.4, 0.1, 0.3, np.nan])
RIGHT = np.array([True, True, False, False, True])


def test_means_and_counts_by_hand():
    found = centre_means(SHARES, RIGHT, ["a", "b", "a", "b", "c"], resamples=100)
    assert [found[name]["n"] for name in ("all", "right", "wrong")] == [4, 2, 2]
    assert [found[name]["value"] for name in ("all", "right", "wrong")] == pytest.approx([0.25, 0.3, 0.2])
    assert found["difference"]["value"] == pytest.approx(0.1) and found["flat"] == 1
    assert found["interval"].startswith("95 %, Student's t on 100 resamples of 3 slides")


def test_the_difference_is_paired_within_slides():
    # In each slide right beats wrong by 0.1, whatever the slide's level, so no resample says otherwise.
    level = np.repeat([0.1, 0.3, 0.5, 0.7], 2)
    found = centre_means(level + np.tile([0.1, 0.0], 4), np.tile([True, False], 4), np.repeat(list("abcd"), 2), resamples=200)
    difference = found["difference"]
    assert (difference["value"], difference["low"], difference["high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert found["right"]["high"] - found["right"]["low"] > 0.1


def test_the_interval_is_that_of_a_plain_double_loop():
    rng = np.random.default_rng(1)
    shares, right, slides = rng.random(60), rng.random(60) < 0.7, rng.integers(0, 12, 60)
    found = centre_means(shares, right, slides, resamples=500, seed=3)["difference"]
    codes = {slide: code for code, slide in enumerate(dict.fromkeys(slides))}
    drawn = []
    for times in np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=500):
        weight = times[[codes[slide] for slide in slides]]
        drawn.append(np.average(shares[right], weights=weight[right]) - np.average(shares[~right], weights=weight[~right]))
    counted = count_groups(slides, right)
    assert (found["low"], found["high"]) == pytest.approx(student_interval(found["value"], np.array(drawn), counted, PLAIN))


def test_without_a_wrong_call_there_is_no_difference():
    found = centre_means(SHARES[:2], np.array([True, True]), ["a", "b"], resamples=100)
    assert found["wrong"] == {"n": 0, "value": None, "low": None, "high": None, "reason": "there are none"}
    assert found["difference"]["reason"] == "all calls are right"


def test_resamples_without_a_wrong_call_are_left_out():
    found = centre_means(np.array([0.2, 0.4, 0.1, 0.2]), np.array([True, True, False, False]), list("abcd"), resamples=300)
    assert found["difference"]["resamples"] < 300 and np.isfinite(found["difference"]["low"])


def test_one_slide_gives_no_interval():
    found = centre_means(SHARES[:4], RIGHT[:4], ["a"] * 4, resamples=100)
    assert (found["difference"]["low"], found["difference"]["reason"]) == (None, "right or wrong calls are on one slide only")


def test_patches_are_resampled_where_slides_are_unknown():
    assert centre_means(SHARES, RIGHT, None, "patch", resamples=100)["interval"].startswith("95 %")
