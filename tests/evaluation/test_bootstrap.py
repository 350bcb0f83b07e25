"""Intervals: exact values, the right rows drawn, and coverage where slides differ."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import t as student

from pcam_ssl.evaluation import bootstrap
from pcam_ssl.evaluation.bootstrap import intervals, paired_differences, within_folds
from pcam_ssl.evaluation.metrics import auroc, point_scores


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is remembered, so that two calls compute twice."""
    monkeypatch.setattr(bootstrap, "REMEMBERED", 0)


def slides_that_differ(rng, n_slides=30, patches=25, spread=1.5):
    """Labels, probs and slides [N]; the logits of a slide share a shift, so its patches err together."""
    slides = np.repeat(np.arange(n_slides), patches)
    labels = rng.integers(2, size=len(slides))
    logits = 2 * (labels - 0.5) + spread * rng.normal(size=n_slides)[slides] + rng.normal(size=len(slides))
    return labels, expit(logits), slides


@pytest.fixture
def rows():
    labels, probs, slides = slides_that_differ(np.random.default_rng(0))
    return labels, np.round(probs, 2), slides


def doubled(rows, times):
    """The rows as a resample has them: each row of slide g written `times[g]` times."""
    labels, probs, slides = rows
    return np.repeat(labels, times[slides]), np.repeat(probs, times[slides])


def cell_scores_of(rows, times):
    labels, probs, slides = rows
    cells = bootstrap._cells(labels, probs, slides, len(times))
    return {name: drawn[0] for name, drawn in bootstrap._all_scores(cells, times[:, None].astype(float)).items()}


def test_values_are_the_point_scores(rows):
    assert {name: entry["value"] for name, entry in intervals(*rows, resamples=5).items()} == point_scores(*rows[:2])


@pytest.mark.parametrize("few", [0, 30])
@pytest.mark.parametrize("name", point_scores([0, 1], [0.1, 0.9]))
def test_a_resample_has_the_scores_of_its_repeated_rows(rows, name, few, monkeypatch):
    monkeypatch.setattr(bootstrap, "FEW_GROUPS", few)
    times = np.random.default_rng(1).integers(4, size=30)
    assert cell_scores_of(rows, times)[name] == pytest.approx(point_scores(*doubled(rows, times))[name])


@pytest.mark.parametrize("name", point_scores([0, 1], [0.1, 0.9]))
def test_coarse_cells_stay_near_the_scores_of_the_repeated_rows(rows, name, monkeypatch):
    monkeypatch.setattr(bootstrap, "CELLS", 60)
    times = np.random.default_rng(1).integers(4, size=30)
    assert cell_scores_of(rows, times)[name] == pytest.approx(point_scores(*doubled(rows, times))[name], abs=0.02)


def test_weighted_auroc_equals_a_double_loop(rows):
    labels, probs, slides = rows
    times = np.random.default_rng(2).integers(3, size=30)
    won = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            weight = times[slides[i]] * times[slides[j]]
            pairs += weight
            won += weight * ((probs[i] > probs[j]) + 0.5 * (probs[i] == probs[j]))
    assert cell_scores_of(rows, times)["auroc"] == pytest.approx(won / pairs)


def test_every_resample_draws_as_many_slides_as_there_are():
    drawn = bootstrap._draw(np.random.default_rng(0), 7, 50)
    assert drawn.shape == (7, 50)
    assert (drawn.sum(axis=0) == 7).all()


def test_slides_are_drawn_evenly():
    drawn = bootstrap._draw(np.random.default_rng(0), 4, 5000)
    assert drawn.mean(axis=1) == pytest.approx([1, 1, 1, 1], abs=0.05)


def test_nll_interval_by_hand():
    # Two slides of row NLL log 2 and 3 log 2: a resample means log 2, 2 log 2 or 3 log 2 with chance 1/4, 1/2, 1/4.
    probs = [0.5, 0.5, 0.125, 0.875]
    found = intervals([1, 0, 1, 0], probs, ["a", "a", "b", "b"], resamples=20_000)["nll"]
    drawn = np.repeat(np.log(np.array([1, 2, 3]) * np.log(2)), [1, 2, 1])
    reach = student.ppf(0.975, 1) * drawn.std() * np.sqrt(2)
    assert found["value"] == pytest.approx(2 * np.log(2))
    assert np.log([found["low"], found["high"]]) == pytest.approx(np.log(found["value"]) + np.array([-reach, reach]), rel=0.03)


def test_order_of_rows_does_not_matter(rows):
    order = np.random.default_rng(3).permutation(len(rows[0]))
    shuffled = intervals(*(column[order] for column in rows), resamples=50)["auroc"]
    assert shuffled["low"] == pytest.approx(intervals(*rows, resamples=50)["auroc"]["low"])


def test_the_seed_decides_the_interval(rows):
    assert intervals(*rows, resamples=50, seed=1) == intervals(*rows, resamples=50, seed=1)
    assert intervals(*rows, resamples=50, seed=1) != intervals(*rows, resamples=50, seed=2)


@pytest.mark.parametrize("at_once", [1, 2, 7, 59])
def test_chunks_do_not_change_the_intervals(rows, monkeypatch, at_once):
    whole = intervals(*rows, resamples=60)
    monkeypatch.setattr(bootstrap, "WEIGHTS", 30 * at_once)
    assert intervals(*rows, resamples=60) == whole


def test_a_run_has_the_same_intervals_alone_as_beside_others(rows, monkeypatch):
    labels, probs, slides = rows
    others = np.random.default_rng(8).uniform(size=len(probs))
    # A chunk is as wide as the run with the most distinct probs allows, here that of the others.
    monkeypatch.setattr(bootstrap, "CHUNK", len(others))
    beside = bootstrap.intervals_and_differences(labels, [others, probs], slides, resamples=50)[1][0]
    assert beside == intervals(labels, probs, slides, resamples=50)


def test_a_higher_level_is_wider(rows):
    narrow, wide = (intervals(*rows, resamples=300, level=level)["auroc"] for level in (0.5, 0.99))
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_without_groups_each_patch_is_its_own_group():
    labels, probs, _ = slides_that_differ(np.random.default_rng(4), n_slides=20)
    assert intervals(labels, probs, None, resamples=50) == intervals(labels, probs, np.arange(1000, 1500), resamples=50)


def test_rows_without_slide_count_as_one_slide():
    rows = [1, 0, 1, 0], [0.9, 0.1, 0.1, 0.9]
    assert intervals(*rows, ["a", "a", None, None], resamples=50) == intervals(*rows, ["a", "a", "b", "b"], resamples=50)


def test_one_slide_has_a_value_and_no_interval():
    found = intervals([1, 0], [0.9, 0.1], ["a", "a"])["auroc"]
    assert found == {
        "value": 1.0,
        "low": None,
        "high": None,
        "resamples": 0,
        "reason": "fewer than two slides hold the rarer class, so no spread between slides can be seen",
    }


def test_one_class_has_no_auroc():
    found = intervals([1, 1], [0.9, 0.1], ["a", "b"])["auroc"]
    assert found["value"] is None
    assert found["reason"] == "the score is not defined: one class only"


def test_resamples_of_one_class_are_left_out_and_counted():
    # Each slide holds one class: of 4^4 equally likely draws 2 x 2^4 are of one class and define no AUROC.
    found = intervals([1, 1, 0, 0], [0.9, 0.4, 0.5, 0.1], list("abcd"))
    assert 1700 < found["auroc"]["resamples"] < 1800
    assert found["accuracy"]["resamples"] == 2000


def test_slides_of_one_class_do_not_count_for_the_other():
    # Twenty slides, and all tumor on one of them: nobody can say how tumor differs between slides.
    labels, probs, slides = slides_that_differ(np.random.default_rng(3), n_slides=20)
    labels = np.where(slides == 0, labels, 0)
    assert intervals(labels, probs, slides, resamples=20)["auroc"]["low"] is None


def test_the_mean_within_folds_by_hand():
    # Fold 0 ranks all pairs right and fold 1 half of them; pooled, the folds' scales do not fit.
    labels, folds = [1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 1, 1]
    probs = [0.3, 0.2, 0.9, 0.8, 0.7, 0.75]
    found = within_folds(labels, probs, folds, None, resamples=20)
    assert (found["value"], found["folds"]) == (pytest.approx((1 + 1 / 2) / 2), 2)


def test_folds_of_one_class_are_left_out_of_the_mean_within_folds():
    found = within_folds([1, 0, 0, 0], [0.9, 0.1, 0.5, 0.6], [0, 0, 1, 1], None, resamples=20)
    assert (found["value"], found["folds"]) == (1.0, 1)


def test_a_shift_between_folds_leaves_the_mean_within_folds_alone(rows):
    labels, probs, slides = rows
    folds = slides % 3
    shifted = expit(logit(np.clip(probs, 0.005, 0.995)) + 2 * folds)
    same, moved = (within_folds(labels, each, folds, slides, resamples=50) for each in (probs, shifted))
    assert moved["value"] == pytest.approx(same["value"], abs=0.005)
    assert auroc(labels, shifted) < auroc(labels, probs) - 0.05
    assert same["low"] < same["value"] < same["high"]


def test_clustered_intervals_cover_and_patch_intervals_do_not():
    rng = np.random.default_rng(5)
    truth = auroc(*slides_that_differ(rng, n_slides=20_000)[:2])
    covered = {"slides": 0, "patches": 0}
    for _ in range(50):
        labels, probs, slides = slides_that_differ(rng, patches=100)
        for name, groups in (("slides", slides), ("patches", None)):
            found = intervals(labels, probs, groups, resamples=200)["auroc"]
            covered[name] += found["low"] <= truth <= found["high"]
    assert covered["slides"] >= 42
    assert covered["patches"] <= 34


def test_paired_value_is_b_minus_a(rows):
    labels, probs, slides = rows
    better = np.clip(probs + 0.1 * labels, 0, 1)
    found = paired_differences(labels, probs, better, slides, resamples=20)
    assert found["auroc"]["value"] == auroc(labels, better) - auroc(labels, probs)


def test_a_model_differs_from_itself_by_zero(rows):
    labels, probs, slides = rows
    for entry in paired_differences(labels, probs, probs, slides, resamples=20).values():
        assert (entry["value"], entry["low"], entry["high"]) == (0, 0, 0)


def test_null_effect_covers_zero():
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(60):
        labels, probs, slides = slides_that_differ(rng)
        a, b = (np.clip(probs + 0.2 * rng.normal(size=len(probs)), 0, 1) for _ in range(2))
        found = paired_differences(labels, a, b, slides, resamples=200)["auroc"]
        covered += found["low"] <= 0 <= found["high"]
    assert covered >= 52


def test_pairing_narrows_the_interval(rows):
    labels, probs, slides = rows
    other = np.clip(probs + 0.02 * np.random.default_rng(7).normal(size=len(probs)), 0, 1)
    alone = intervals(labels, probs, slides, resamples=200)["auroc"]
    paired = paired_differences(labels, probs, other, slides, resamples=200)["auroc"]
    assert paired["high"] - paired["low"] < 0.2 * (alone["high"] - alone["low"])


def test_paired_difference_of_an_undefined_score_is_none():
    assert paired_differences([1, 1], [0.9, 0.1], [0.8, 0.2], ["a", "b"])["auroc"]["value"] is None


@pytest.mark.parametrize("few", [0, 30])
def test_the_auroc_alone_is_that_among_all_scores(rows, few, monkeypatch):
    monkeypatch.setattr(bootstrap, "FEW_GROUPS", few)
    labels, probs, slides = rows
    drawn = [
        bootstrap._resampled(labels, [probs], slides, 30, 50, 0, scored)[0]["auroc"]
        for scored in (bootstrap._auroc, bootstrap._all_scores)
    ]
    assert np.array_equal(*drawn)


def test_resampled_scores_are_computed_once(rows, monkeypatch):
    monkeypatch.setattr(bootstrap, "REMEMBERED", 2**24)
    labels, probs, slides = rows
    other = np.sqrt(probs)
    first = paired_differences(labels, other, probs, slides, resamples=50, seed=7)
    computed = []
    drawn = bootstrap._drawn
    monkeypatch.setattr(
        bootstrap, "_drawn", lambda labels, several, *rest: computed.extend(several) or drawn(labels, several, *rest)
    )
    assert paired_differences(labels, other, probs, slides, resamples=50, seed=7) == first
    assert not computed
    # Each of what the draws rest on asks for new ones.
    third = probs**2
    flipped = labels.copy()
    flipped[0] = 1 - flipped[0]
    moved = slides.copy()
    moved[0] = slides[-1]
    for asked in (
        (labels, other, third, slides, 50, 7),
        (flipped, other, probs, slides, 50, 7),
        (labels, other, probs, moved, 50, 7),
    ):
        computed.clear()
        paired_differences(*asked)
        assert len(computed) == (1 if asked[2] is third else 2)
    for options in ({"resamples": 51, "seed": 7}, {"resamples": 50, "seed": 8}):
        computed.clear()
        paired_differences(labels, other, probs, slides, **options)
        assert len(computed) == 2


def test_what_is_remembered_is_bounded(rows, monkeypatch):
    labels, probs, slides = rows
    entry = len(point_scores(labels, probs)) * 50 * 8
    monkeypatch.setattr(bootstrap, "REMEMBERED", 3 * entry)
    monkeypatch.setattr(bootstrap, "_remembered", type(bootstrap._remembered)())
    for power in range(1, 6):
        intervals(labels, probs**power, slides, resamples=50)
    assert len(bootstrap._remembered) == 3
    (draws,) = bootstrap._resampled(labels, [probs**5], slides, 30, 50, 0)
    with pytest.raises(ValueError, match="read-only"):
        draws["auroc"][0] = 0
