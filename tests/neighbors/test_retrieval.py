"""Retrieval measures: hand-computed, equal to pytorch-metric-learning, counted across slides, and their intervals."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.confidence import SHARE
from pcam_ssl.evaluation.resampled_sums import mean_intervals
from pcam_ssl.neighbors import retrieval
from pcam_ssl.neighbors.retrieval import MEASURES, query_scores, relevance_measures, retrieval_scores, summarise


def at_degrees(*degrees):
    """Unit vectors [N, 2] at these angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


@pytest.mark.parametrize(
    ("same", "expected"),
    [
        ([1, 1, 0, 0], (1, 1, 1, 1)),
        ([0, 1, 1, 0], (0, 1 / 2, 1 / 4, 1)),  # R = 2: one hit, at place 2, where precision is 1/2
        ([1, 0, 1, 1, 0], (1, 2 / 3, (1 + 2 / 3) / 3, 1)),
        ([0, 0, 0, 0, 0, 1], (0, 0, 0, 0)),
    ],
)
def test_measures_by_hand(same, expected):
    assert relevance_measures(np.array(same, dtype=bool)) == pytest.approx(expected)


def test_a_query_without_its_class_has_no_score():
    assert np.isnan(relevance_measures(np.zeros(4, dtype=bool))).all()


def test_patches_at_known_angles():
    # From 0 degrees the others stand at 10 (same), 25 (other), 40 (same), 180 (other): R = 2, hits 1 0.
    scores = query_scores(at_degrees(0, 10, 25, 40, 180), [1, 1, 0, 1, 0])
    assert scores.loc[0, "precision_at_1_all_slides"] == 1
    assert scores.loc[0, "r_precision_all_slides"] == 1 / 2
    assert scores.loc[0, "map_at_r_all_slides"] == 1 / 2
    assert scores.loc[4, "precision_at_1_all_slides"] == 0


def test_the_own_slide_is_left_out_and_r_counted_anew():
    # Row 0 on slide a: of the others only 25 (other), 40 (same), 60 (same) are on another slide, so R = 2 and hits are 0 1.
    scores = query_scores(at_degrees(0, 10, 25, 40, 60), [1, 1, 0, 1, 1], ["a", "a", "b", "b", "c"])
    assert scores.loc[0, "precision_at_1_across_slides"] == 0
    assert scores.loc[0, "r_precision_across_slides"] == 1 / 2
    assert scores.loc[0, "map_at_r_across_slides"] == pytest.approx(1 / 4)
    assert scores.loc[0, "cmc_at_5_across_slides"] == 1
    assert scores.loc[0, "precision_at_1_all_slides"] == 1
    assert np.isnan(scores.loc[2, "precision_at_1_across_slides"])


def test_a_patch_of_unknown_slide_takes_no_part_across_slides():
    scores = query_scores(at_degrees(0, 5, 10, 20), [1, 1, 1, 0], ["a", None, "b", "b"])
    assert np.isnan(scores.loc[1, "r_precision_across_slides"])
    assert scores.loc[0, "r_precision_across_slides"] == 1


@pytest.fixture
def embedded():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=150)
    embeddings = rng.normal(size=(150, 5)) + 0.7 * labels[:, None]
    return embeddings.astype(np.float32), labels, np.array([f"s{code}" for code in rng.integers(8, size=150)])


def test_equal_to_pytorch_metric_learning(embedded):
    torch = pytest.importorskip("torch")
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    embeddings, labels, _ = embedded
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"), k="max_bin_count", device=torch.device("cpu")
    )
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings))
    theirs = calculator.get_accuracy(unit, torch.from_numpy(labels))
    ours = retrieval_scores(embeddings, labels, resamples=10)["all_slides"]
    assert ours["precision_at_1"]["value"] == pytest.approx(theirs["precision_at_1"])
    assert ours["r_precision"]["value"] == pytest.approx(theirs["r_precision"])
    assert ours["map_at_r"]["value"] == pytest.approx(theirs["mean_average_precision_at_r"])


def test_across_slides_equals_one_query_at_a_time(embedded):
    embeddings, labels, slides = embedded
    scores = query_scores(embeddings, labels, slides)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for row in range(0, 150, 7):
        others = np.flatnonzero(slides != slides[row])
        ranked = others[np.argsort(-(unit[others] @ unit[row]))]
        expected = relevance_measures(labels[ranked] == labels[row])
        found = scores.loc[row, [f"{measure}_across_slides" for measure in MEASURES]]
        np.testing.assert_allclose(found.to_numpy(dtype=float), expected)


def test_blocks_do_not_change_the_scores(embedded, monkeypatch):
    whole = query_scores(*embedded)
    monkeypatch.setattr(retrieval, "BLOCK", 150 * 7)
    pd.testing.assert_frame_equal(query_scores(*embedded), whole)


def test_above_the_bound_a_seeded_sample_is_queried_against_all(embedded):
    sampled = retrieval_scores(*embedded, pairs=150 * 40, seed=3, resamples=10)
    assert (sampled["patches"], sampled["sampled"], sampled["queried"]) == (150, True, 40)
    whole = query_scores(*embedded).set_index("row")
    part = query_scores(*embedded, pairs=150 * 40, seed=3).set_index("row")
    pd.testing.assert_frame_equal(part, whole.loc[part.index])
    assert part.index.equals(query_scores(*embedded, pairs=150 * 40, seed=3).set_index("row").index)


def test_below_the_bound_every_patch_is_queried(embedded):
    scores = retrieval_scores(*embedded, resamples=10)
    assert (scores["patches"], scores["sampled"], scores["queried"]) == (150, False, 150)


def test_equal_embeddings_sorted_by_class_score_at_chance():
    labels = np.repeat([0, 1], 200)
    scores = retrieval_scores(np.ones((400, 3)), labels, resamples=10)["all_slides"]
    assert scores["r_precision"]["value"] == pytest.approx(0.5, abs=0.05)


def test_without_slides_there_are_no_scores_across_slides(embedded):
    scores = retrieval_scores(*embedded[:2], resamples=10)
    assert scores["across_slides"] is None
    assert scores["reason"] == "no slides known"


def test_one_slide_has_no_scores_across_slides_and_no_interval(embedded):
    scores = retrieval_scores(*embedded[:2], ["a"] * 150, resamples=10)
    assert scores["across_slides"] is None
    assert scores["reason"] == "no patch has a patch of its class on another slide"
    assert scores["all_slides"]["map_at_r"]["low"] is None
    assert scores["all_slides"]["map_at_r"]["reason"] == "one slide only"


def test_folds_are_summarised_together(embedded):
    embeddings, labels, slides = embedded
    folds = [query_scores(embeddings[part], labels[part], slides[part]) for part in (slides < "s4", slides >= "s4")]
    together = summarise(pd.concat(folds), resamples=10)
    values = pd.concat(folds)["map_at_r_all_slides"]
    assert together["all_slides"]["map_at_r"]["value"] == pytest.approx(values.mean())
    assert together["all_slides"]["queries"] == 150


def test_a_nan_embedding_is_named(embedded):
    embedded[0][2] = np.nan
    with pytest.raises(UserError, match="1 of 150 embeddings are NaN or infinite, first of id p2;"):
        retrieval_scores(*embedded, ids=[f"p{row}" for row in range(150)])


def test_intervals_by_hand():
    # Slides of equal size with means 0 and 1: a resample is 0, 1/2 or 1 with odds 1 : 2 : 1, of variance 1/8; two slides double it.
    values = np.array([[0.0], [0.0], [1.0], [1.0]])
    entry = mean_intervals(values, ["a", "a", "b", "b"], resamples=5000)[0]
    assert (entry["value"], entry["resamples"]) == (0.5, 5000)
    assert entry["high"] - 0.5 == pytest.approx(0.5 - entry["low"]) == pytest.approx(student.ppf(0.975, 1) / 2, rel=0.03)


def test_a_share_stays_within_0_and_1():
    entry = mean_intervals(np.array([[0.0], [0.0], [1.0], [1.0]]), ["a", "a", "b", "b"], resamples=50, kind=SHARE)[0]
    assert 0 <= entry["low"] < 0.5 < entry["high"] <= 1


def test_intervals_weigh_slides_by_their_patches():
    values = np.array([[0.0]] * 9 + [[1.0]])
    slides = ["a"] * 9 + ["b"]
    # A resample is 0, 1/10 or 1 with odds 1 : 2 : 1; slides that weighed alike would give 0, 1/2, 1.
    entry = mean_intervals(values, slides, resamples=5000)[0]
    assert entry["value"] == pytest.approx(0.1)
    spread = np.std([0, 0.1, 0.1, 1]) * np.sqrt(2)
    assert entry["high"] - 0.1 == pytest.approx(student.ppf(0.975, 1) * spread, rel=0.03)


def test_intervals_cover_the_truth_where_slides_differ():
    covered = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = (rng.normal(size=40)[:, None] + rng.normal(size=(40, 10))).reshape(-1, 1)
        entry = mean_intervals(values, np.repeat(np.arange(40), 10).astype(str), resamples=300, seed=seed)[0]
        covered += entry["low"] <= 0 <= entry["high"]
    assert 0.88 <= covered / 200 <= 0.98


def test_without_slides_each_patch_is_drawn_alone():
    values = np.random.default_rng(0).normal(size=(100, 1))
    alone = mean_intervals(values, None, resamples=50)[0]
    assert alone == mean_intervals(values, [f"{row:03}" for row in range(100)], resamples=50)[0]


def test_a_column_has_the_same_interval_alone_and_beside_others():
    rng = np.random.default_rng(1)
    values, slides = rng.uniform(size=(300, 8)), rng.integers(0, 40, 300).astype(str)
    alone = [mean_intervals(values[:, [column]], slides, resamples=101)[0] for column in range(8)]
    assert mean_intervals(values, slides, resamples=101) == alone
