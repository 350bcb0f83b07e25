"""Recipes over their seeds: means and spread by hand, and differences that know of seeds and slides both."""

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, roc_auc_score

from pcam_ssl.compare.seeds import over_seeds
from pcam_ssl.evaluation.bootstrap import intervals_and_differences

SLIDES = np.repeat(np.arange(12), 10)
LABELS = np.tile([0, 1], 60)


def accurate(right: int) -> np.ndarray:
    """Probs that call `right` of each slide's ten patches right: every slide alike, so that slides add nothing to the spread."""
    calls = np.tile(np.arange(10) < right, 12)
    return np.where(calls, 0.2 + 0.6 * LABELS, 0.8 - 0.6 * LABELS)


def noisy(seed: int, skill: float = 1.0) -> np.ndarray:
    """Probs of a network that found another solution with each seed, and is fooled by some slides whatever the seed."""
    rng = np.random.default_rng(seed)
    slide = np.random.default_rng(5).normal(size=12)[SLIDES]
    return 1 / (1 + np.exp(-((skill + rng.normal(0, 0.4)) * (LABELS - 0.5) + slide + rng.normal(size=120))))


def told(groups, score="accuracy", **options):
    return [(scores[score], gap[score]) for scores, gap in over_seeds(LABELS, groups, SLIDES, **{"resamples": 200, **options})]


def test_mean_and_spread_are_over_the_seeds():
    (score, _), _ = told([{0: accurate(5), 1: accurate(6), 2: accurate(10)}, {0: accurate(5)}])
    assert score == pytest.approx({"value": 0.7, "sd": np.std([0.5, 0.6, 1.0], ddof=1), "min": 0.5, "max": 1.0})


def test_one_seed_has_no_spread():
    _, (score, gap) = told([{0: accurate(5), 1: accurate(6)}, {0: accurate(7)}])
    assert (score["sd"], score["value"], gap["seeds_counted"]) == (None, pytest.approx(0.7), False)


def test_a_difference_is_paired_by_seed_and_known_by_as_many_differences():
    # Differences 0.1 and 0.3, in whatever order the seeds were named: mean 0.2, sd of the mean 0.1, Student's t with 1 degree of freedom.
    _, (_, gap) = told([{0: accurate(5), 1: accurate(6)}, {1: accurate(9), 0: accurate(6)}])
    half = student.ppf(0.975, 1) * 0.1
    assert (gap["value"], gap["low"], gap["high"]) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert (gap["paired_seeds"], gap["seeds_counted"]) == (True, True)


def test_seeds_that_are_not_the_same_are_not_paired():
    # Groups 0.5, 0.6 and 0.6, 0.9 apart: variance of the means 0.005 / 2 and 0.045 / 2, degrees of freedom by Welch.
    _, (_, gap) = told([{0: accurate(5), 1: accurate(6)}, {2: accurate(6), 3: accurate(9)}])
    half = student.ppf(0.975, 0.025**2 / (0.0025**2 + 0.0225**2)) * np.sqrt(0.025)
    assert (gap["value"], gap["high"]) == pytest.approx((0.2, 0.2 + half))
    assert gap["paired_seeds"] is False


def test_where_seeds_agree_the_slides_are_left():
    first, other = noisy(0), noisy(1, skill=2.0)
    _, (_, gap) = told([{0: first, 1: first}, {0: other, 1: other}], "auroc", resamples=2000)
    wanted = roc_auc_score(LABELS, other) - roc_auc_score(LABELS, first)
    low, high = (intervals_and_differences(LABELS, [first, other], SLIDES)[1][1]["auroc"][end] for end in ("low", "high"))
    assert gap["value"] == pytest.approx(wanted)
    assert gap["high"] - gap["low"] == pytest.approx(high - low, rel=0.25)


def test_the_interval_of_one_seed_is_student_s_of_the_slides():
    # Three slides of ten patches on which the accuracy differs by 0, 0.2 and 0.4: sd 0.2, 2 degrees of freedom.
    slides, labels = np.repeat([0, 1, 2], 10), LABELS[:30]
    right = np.concatenate([np.arange(10) < 5 + 2 * k for k in range(3)])
    probs = [np.where(calls, 0.2 + 0.6 * labels, 0.8 - 0.6 * labels) for calls in (np.tile(np.arange(10) < 5, 3), right)]
    gap = over_seeds(labels, [{0: probs[0]}, {0: probs[1]}], slides, 4000)[1][1]["accuracy"]
    half = student.ppf(0.975, 2) * 0.2 / np.sqrt(3)
    assert (gap["value"], gap["high"]) == (pytest.approx(0.2), pytest.approx(0.2 + half, rel=0.05))


def test_equal_recipes_are_seldom_told_apart_over_seeds_and_often_by_one():
    """25 pairs of one recipe with other seeds: no difference is there to be found."""
    over, alone = 0, 0
    for trial in range(25):
        a, b = ({seed: noisy(1000 * trial + 10 * group + seed) for seed in range(3)} for group in (0, 1))
        gap = told([a, b], "auroc", resamples=100)[1][1]
        over += gap["low"] > 0 or gap["high"] < 0
        gap = intervals_and_differences(LABELS, [a[0], b[0]], SLIDES, 100)[1][1]["auroc"]
        alone += gap["low"] > 0 or gap["high"] < 0
    assert over <= 3 < alone


@pytest.mark.parametrize(("labels", "slides", "said"), [(0 * LABELS, SLIDES, "one class"), (LABELS, 0 * SLIDES, "two slides")])
def test_a_difference_without_interval_has_a_reason(labels, slides, said):
    _, (_, gaps) = over_seeds(labels, [{0: noisy(0), 1: noisy(1)}, {0: noisy(2), 1: noisy(3)}], slides, 50)
    assert (gaps["auroc"]["low"], gaps["auroc"]["high"]) == (None, None)
    assert said in gaps["auroc"]["reason"]


def test_accuracies_of_the_cases_are_what_they_say():
    assert accuracy_score(LABELS, accurate(7) > 0.5) == 0.7
