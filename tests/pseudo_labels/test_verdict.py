"""Rounds side by side, by hand-computed cases; and what the interval of a null effect covers."""

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.pseudo_labels.verdict import (
    SCORES,
    WITHHELD,
    RoundTables,
    added_counts,
    choose_round,
    chosen_by_fold,
    chosen_scores,
    inner_scores,
    round_rows,
)
from pcam_ssl.render.format import gain_numbers, gain_words
from pcam_ssl.tables import predictions

LABELS = [0, 1, 0, 1, 0, 1, 0, 1]
SLIDES = np.repeat(["s0", "s1", "s2", "s3"], 2)
SURE, RIGHT, HALF, WRONG = (0.1, 0.9), (0.2, 0.8), (0.5, 0.5), (0.8, 0.2)


def table(pairs, fold=0, ids=None, labels=None) -> pd.DataFrame:
    """Predictions of a normal and a tumor patch for each pair of probs."""
    probs = np.array(pairs).ravel()
    labels = [0, 1] * len(pairs) if labels is None else labels
    ids = [f"p{n}" for n in range(len(probs))] if ids is None else ids
    return predictions(ids, labels, [None] * len(probs), fold, np.log(probs / (1 - probs)), probs=probs)


def oof(*pairs) -> pd.DataFrame:
    """Four pairs: the first two are of fold 0, the others of fold 1."""
    frame = table(pairs)
    frame["fold"] = np.repeat([0, 1], 4).astype("int8")
    return frame


def decisions(*rows, fold=0) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["decision", "label", "change"]).assign(fold=fold)


ADDED, LEFT_OUT = ("added", 1.0, "new"), ("left out", np.nan, "")


def tables(number, inner, out=(HALF,) * 4, added=None) -> RoundTables:
    """A round of two folds; `inner` are the folds' probs of one normal and one tumor patch."""
    kept = {fold: table([pair]) for fold, pair in enumerate(inner)}
    return RoundTables(number, None if out is None else oof(*out), kept, added, [100, 104])


@pytest.fixture
def rounds() -> list[RoundTables]:
    """Fold 0 likes round 1 best, fold 1 round 2; the mean likes round 1 and 2 alike."""
    added = pd.concat([decisions(ADDED, LEFT_OUT, fold=fold) for fold in (0, 1)])
    return [
        tables(0, [HALF, HALF]),
        tables(1, [RIGHT, HALF], (RIGHT, RIGHT, WRONG, WRONG), added),
        tables(2, [HALF, RIGHT], (WRONG, WRONG, RIGHT, RIGHT), added),
    ]


def test_added_are_counted_by_class_and_change():
    counts = added_counts(
        decisions(
            ("added", 1.0, "new"),
            ("added", 0.9, "kept"),
            ("added", 0.1, "flipped"),
            ("left out", np.nan, "taken back"),
            ("left out", np.nan, ""),
        )
    )
    assert counts == {"tumor": 2, "normal": 1, "new": 1, "kept": 1, "flipped": 1, "taken_back": 1}


def test_inner_scores_are_means_over_folds():
    found = inner_scores({0: table([RIGHT]), 1: table([HALF])})
    assert found["auroc"] == 0.75
    assert found["nll"] == pytest.approx((-np.log(0.8) - np.log(0.5)) / 2)
    assert found["by_fold"]["1"]["auroc"] == 0.5


def test_inner_slides_of_one_class_are_left_out_of_the_mean():
    found = inner_scores({0: table([RIGHT]), 1: table([RIGHT], labels=[1, 1])})
    assert (found["auroc"], found["by_fold"]["1"]["auroc"]) == (1.0, None)


def test_no_fold_with_both_classes_has_no_inner_auroc():
    assert inner_scores({0: table([RIGHT], labels=[0, 0])})["auroc"] is None


def test_of_equal_rounds_the_earlier_is_chosen(rounds):
    assert choose_round(rounds) == 1


def test_the_best_inner_auroc_is_chosen():
    assert choose_round([tables(0, [HALF, HALF]), tables(1, [WRONG, HALF]), tables(2, [RIGHT, HALF])]) == 2


def test_of_rounds_with_equal_inner_auroc_the_earliest_is_chosen():
    assert choose_round([tables(0, [WRONG, WRONG]), tables(1, [RIGHT, RIGHT]), tables(2, [SURE, SURE])]) == 1


def test_inner_auroc_that_differs_by_rounding_alone_is_equal():
    """Each ranks 3 of 9 pairs rightly, and the AUROCs that are computed differ in the last digit."""
    first = [table([(0.46, 0.44), (0.48, 0.45), (0.52, 0.56)])]
    later = [table([(0.29, 0.14), (0.57, 0.43), (0.86, 0.71)])]
    entries = [RoundTables(number, None, dict(enumerate(inner)), None, []) for number, inner in enumerate((first, later))]
    aurocs = [inner_scores(entry.inner)["auroc"] for entry in entries]
    assert aurocs[0] < aurocs[1] == pytest.approx(1 / 3)
    assert choose_round(entries) == 0


def test_without_any_inner_auroc_round_0_is_chosen():
    one_class = {0: table([RIGHT], labels=[1, 1])}
    assert choose_round([RoundTables(number, None, one_class, None, []) for number in range(3)]) == 0


def test_each_fold_chooses_by_its_own_inner_slides(rounds):
    chosen, composed = chosen_by_fold(rounds)
    assert chosen == {0: 1, 1: 2}
    assert composed.id.tolist() == rounds[0].oof.id.tolist()
    assert composed.prob.tolist() == [0.2, 0.8] * 4


def test_a_round_that_added_nothing_is_not_chosen():
    assert choose_round([tables(0, [HALF, HALF]), tables(1, [RIGHT, RIGHT], added=decisions(LEFT_OUT))]) == 0


def test_a_fold_does_not_choose_a_round_that_added_nothing_to_it():
    added = pd.concat([decisions(LEFT_OUT), decisions(ADDED, fold=1)])
    entries = [tables(0, [HALF, HALF]), tables(1, [RIGHT, RIGHT], added=added)]
    assert chosen_by_fold(entries)[0] == {0: 0, 1: 1}


def test_labels_of_a_fold_do_not_choose_its_round(rounds):
    for entry in rounds:
        entry.inner[1] = table([WRONG])
        entry.oof["label"] = 1 - entry.oof.label
    assert chosen_by_fold(rounds)[0][0] == 1


def test_chosen_rounds_are_scored_against_round_0(rounds):
    row = chosen_scores(rounds, SLIDES, resamples=50)
    assert row["rounds"] == {"0": 1, "1": 2}
    assert row["out_of_fold"]["auroc"]["value"] == 1.0
    assert row["against_round_0"]["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5, "resamples": 50}


def test_a_row_has_counts_and_scores(rounds):
    rows = round_rows(rounds, SLIDES, resamples=50)
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert rows[0]["labels_used"] == {"mean": 102.0, "by_fold": [100, 104]}
    assert (rows[0]["added"], rows[0]["against_round_0"]) == (None, None)
    assert rows[1]["added"]["tumor"] == 2
    assert rows[1]["inner"]["auroc"] == 0.75
    assert list(rows[1]["out_of_fold"]) == list(rows[1]["against_round_0"]) == list(SCORES)
    assert rows[1]["out_of_fold"]["auroc"]["value"] == 0.5
    assert rows[1]["against_round_0"]["balanced_accuracy"]["value"] == 0.0


def test_rows_are_matched_on_id_not_on_place(rounds):
    rounds[1] = tables(1, [RIGHT, HALF], (RIGHT, RIGHT, HALF, HALF))
    straight = round_rows(rounds, SLIDES, resamples=50)[1]
    rounds[1].oof.sort_values("id", ascending=False, inplace=True, ignore_index=True)
    assert round_rows(rounds, SLIDES, resamples=50)[1] == straight


def test_other_patches_than_those_of_round_0_are_refused(rounds):
    rounds[1].oof["id"] = rounds[1].oof.id.replace("p3", "q3")
    with pytest.raises(UserError, match=r"^round 1: 8 patches are scored, 8 in round 0, 2 of them in one only, first p3; delete"):
        round_rows(rounds, SLIDES, resamples=10)


def test_pooled_scores_are_withheld_with_the_reason():
    entries = [tables(0, [HALF, HALF]), tables(1, [RIGHT, RIGHT], None)]
    row = round_rows(entries, SLIDES, resamples=10)[1]
    empty = {"value": None, "low": None, "high": None, "resamples": 0, "reason": WITHHELD}
    assert row["out_of_fold"] == row["against_round_0"] == dict.fromkeys(SCORES, empty)
    assert chosen_by_fold(entries) == ({0: 1, 1: 1}, None)
    assert chosen_scores(entries, SLIDES)["out_of_fold"]["auroc"] == empty


@pytest.mark.parametrize(
    ("low", "value", "high", "less_is_better", "words"),
    [
        (-0.001, 0.004, 0.009, False, "no measurable gain: +0.004 (-0.001 to +0.009)"),
        (0.0, 0.0, 0.0, False, "no measurable gain: +0.000 (+0.000 to +0.000)"),
        (0.002, 0.004, 0.009, False, "a gain: +0.004 (+0.002 to +0.009)"),
        (-0.009, -0.004, -0.002, False, "a loss: -0.004 (-0.009 to -0.002)"),
        (-0.009, -0.004, -0.002, True, "a gain: -0.004 (-0.009 to -0.002)"),
        (0.002, 0.004, 0.009, True, "a loss: +0.004 (+0.002 to +0.009)"),
    ],
)
def test_a_gain_is_one_only_where_zero_is_outside(low, value, high, less_is_better, words):
    assert gain_words({"value": value, "low": low, "high": high}, less_is_better) == words


def test_a_difference_without_interval_has_a_reason():
    none = {"value": None, "low": None, "high": None, "reason": "one class only"}
    assert (gain_words(none), gain_numbers(none)) == ("gain not known (one class only)", "-")
    assert gain_numbers(none | {"value": 0.01}) == "+0.010"


def null_effect(rng, slides=80, patches=4):
    """Labels, slides, and the probs of two rounds that differ by nothing but exchangeable noise, part of it shared by a slide."""
    slide = np.repeat(np.arange(slides), patches)
    labels = (rng.random(len(slide)) < 0.4).astype(int)
    common = 1.5 * (labels - 0.5) + 0.5 * rng.normal(size=slides)[slide]
    noisy = [common + 0.4 * rng.normal(size=slides)[slide] + 0.8 * rng.normal(size=len(slide)) for _ in range(2)]
    return labels, slide, *(1 / (1 + np.exp(-logits)) for logits in noisy)


@pytest.fixture(scope="module")
def null_coverage() -> dict[str, float]:
    """How often, of 400 repetitions, the interval of a null effect holds zero."""
    rng, covered = np.random.default_rng(0), {name: [] for name in SCORES}
    for repetition in range(400):
        labels, slide, first, second = null_effect(rng)
        found = paired_differences(labels, first, second, slide, resamples=100, seed=repetition)
        for name in SCORES:
            covered[name].append(found[name]["low"] <= 0 <= found[name]["high"])
    return {name: float(np.mean(hits)) for name, hits in covered.items()}


@pytest.mark.parametrize("score", SCORES)
def test_the_interval_of_a_null_effect_covers_zero(null_coverage, score):
    # Two standard errors of 400 repetitions are 0.022, and 100 resamples make the ends a little rough.
    assert 0.92 <= null_coverage[score] <= 0.98


def test_slides_must_be_the_clusters_for_that():
    rng, covered = np.random.default_rng(0), []
    for repetition in range(60):
        labels, _, first, second = null_effect(rng, slides=20, patches=40)
        gain = paired_differences(labels, first, second, None, resamples=100, seed=repetition)["nll"]
        covered.append(gain["low"] <= 0 <= gain["high"])
    assert np.mean(covered) < 0.8
