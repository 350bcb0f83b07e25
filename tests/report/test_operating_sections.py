"""Operating points: chosen on inner slides alone, shown with their errors, absent with a reason."""

import numpy as np
import pandas as pd
import pytest
from json_files import blend_info
from laid_out import markup

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target, choose_threshold, decision_curve
from pcam_ssl.report.operating_point import (
    asked,
    better_where,
    by_slide,
    decision_section,
    operating_point,
    operating_section,
    reached,
)
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.tables import read_table, write_table

TARGET = Target("sensitivity", 0.9)


def shown(run, target: Target = TARGET) -> str:
    """The section on the page."""
    facts = read_facts(run)
    return markup(operating_section(facts, operating_point(facts, target), target))


HOSTILE = "<script>alert(1)</script>"


def change(path, change) -> None:
    """A table after `change(frame)`."""
    write_table(path, change(read_table(path)[0]))


@pytest.fixture
def point(write_run):
    return lambda run=None, target=TARGET, **choices: operating_point(read_facts(run or write_run(**choices)), target)


def test_each_fold_has_the_threshold_of_its_own_inner_slides(write_run, point):
    run = write_run()
    found = point(run)
    for k in (0, 1):
        inner = read_table(run.fold(k) / "inner.parquet")[0]
        threshold = choose_threshold(inner.label.astype(int), inner.prob, TARGET)
        rows = found.rows[found.rows.fold == k]
        assert found.thresholds[k].threshold == threshold
        assert (rows.called == (rows.prob >= threshold)).all()


def test_labels_of_the_scored_patches_move_no_threshold_and_no_call(write_run, point):
    run = write_run()
    before = point(run)
    change(run.path / "oof.parquet", lambda oof: oof.assign(label=1 - oof.label))
    after = point(run)
    assert after.thresholds == before.thresholds
    assert after.rows.called.equals(before.rows.called)
    assert after.confusion == before.confusion[2:] + before.confusion[:2]


def test_scores_and_slides_come_from_the_same_calls(point):
    found = point()
    hit, missed, alarm, right = found.confusion
    assert hit + missed + alarm + right == len(found.rows) == 288
    assert found.scores["sensitivity"]["value"] == hit / (hit + missed)
    assert found.scores["false_positives_per_1000"]["value"] == pytest.approx(1000 * alarm / 288)
    assert found.slides[["patches", "tumor", "missed", "alarms"]].sum().tolist() == [288, hit + missed, missed, alarm]
    assert found.slides.missed.is_monotonic_decreasing


def test_intervals_resample_slides(point):
    sensitivity = point().scores["sensitivity"]
    assert sensitivity["low"] < sensitivity["value"] < sensitivity["high"]


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda run: [path.unlink() for path in run.path.glob("fold-*/inner.parquet")], "the folds have no inner.parquet"),
        (
            lambda run: [change(path, lambda inner: inner.assign(label=1)) for path in run.path.glob("fold-*/inner.parquet")],
            "inner slides hold one class only",
        ),
        (
            lambda run: [
                change(run.fold(k) / "inner.parquet", lambda inner, k=k: read_table(run.fold(k) / "oof.parquet")[0]) for k in (0, 1)
            ],
            "inner slides hold patches that the fold scores",
        ),
        (lambda run: (run.path / "oof.parquet").unlink(), "oof.parquet is not in the run folder"),
    ],
)
def test_without_a_threshold_the_section_says_why(write_run, break_it, reason):
    run = write_run()
    oof = read_table(run.path / "oof.parquet")[0]
    for k in (0, 1):
        write_table(run.fold(k) / "oof.parquet", oof[oof.fold == k])
    break_it(run)
    assert f"Not shown: {reason}" in shown(run)


def test_a_blend_says_why_it_has_none(write_run, edit):
    run = write_run()
    edit(run.paths.provenance, lambda info: info.update(blend_info("a")))
    for path in run.path.glob("fold-*/inner.parquet"):
        path.unlink()
    assert "Not shown: this blend has no predictions on inner slides" in shown(run)


def test_a_fold_without_a_threshold_is_left_out_and_named(write_run, point):
    run = write_run()
    (run.fold(1) / "inner.parquet").unlink()
    found = point(run)
    assert (found.left_out, set(found.rows.fold)) == (144, {0})
    assert "144 patches of fold 1 are left out: the folds have no inner.parquet" in asked(found)


def test_nothing_is_called_where_no_prob_is_high_enough(write_run, point):
    run = write_run()
    change(run.fold(0) / "inner.parquet", lambda inner: inner.assign(prob=np.where(inner.label == 1, 0.2, 0.9)))
    found = point(run, Target("specificity", 1.0))
    assert not found.rows.called[found.rows.fold == 0].any()
    assert "nothing is called tumor" in asked(found)
    assert found.to_dict()["thresholds"][0]["threshold"] is None
    assert "none is high enough" in shown(run, Target("specificity", 1.0))


def test_constant_predictions_are_called_alike(write_run, point):
    run = write_run()
    for path in (run.path / "oof.parquet", *run.path.glob("fold-*/inner.parquet")):
        change(path, lambda table: table.assign(prob=0.5, logit=0.0))
    found = point(run)
    assert found.rows.called.all()
    assert found.scores["specificity"]["value"] == 0
    assert better_where(decision_curve(found.rows.label, found.rows.prob, found.groups)).startswith("At no threshold")


def test_scores_that_are_not_finite_are_refused(write_run):
    run = write_run()
    change(run.fold(0) / "inner.parquet", lambda inner: inner.assign(prob=np.nan))
    with pytest.raises(UserError, match=r"inner\.parquet: 96 scores are not finite"):
        shown(run)


def test_slides_of_one_class_cannot_be_missed(point):
    found = point(one_class="slide-03")
    assert "of 11 slides with tumor have no missed patch" in by_slide(found)
    assert found.slides.loc["slide-03", "tumor"] == 0


def test_without_slides_misses_are_not_told_by_slide(point):
    found = point(slides=(None,) * 12)
    assert by_slide(found) == "Missed patches by slide are not shown: slides are not known."
    assert found.slides.empty


def test_a_score_below_the_target_is_named(write_run, point):
    found = point(target=Target("sensitivity", 1.0))
    assert "Target: sensitivity of at least 100%. Reached on the scored slides: " in reached(found)
    found.scores["sensitivity"].update(value=0.8, low=0.7, high=0.9)
    assert reached(found).endswith("80.0% (70.0% to 90.0%): measurably below the target.")
    found.scores["sensitivity"].update(value=0.95, low=0.7, high=1.0)
    assert reached(found).endswith("below the target, but the interval includes it.")


def test_names_of_slides_are_escaped(write_run):
    run = write_run(slides=(HOSTILE, *(f"slide-{i}" for i in range(11))))
    page = shown(run)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_slides_split_across_folds_are_named(point):
    torn, whole = point(name="torn", torn=True), point()
    assert all(found.shared_slides for found in torn.thresholds)
    assert "Slides are split across folds" in asked(torn)
    assert "neither trains on nor scores" in asked(whole)


def test_the_json_is_plain(write_run, point):
    import json

    told = json.loads(json.dumps(point().to_dict(), allow_nan=False))
    assert told["confusion"].keys() == {"tp", "fn", "fp", "tn"}
    assert len(told["per_slide"]) == 12
    assert told["thresholds"][0]["n_slides"] == 4


def test_the_decision_curve_is_told_with_its_numbers(write_run):
    page = markup(decision_section(read_facts(write_run())))
    assert "The network has measurably more net benefit than treating all or treating none from prob " in page
    assert "<summary>Numbers</summary>" in page
    assert 'role="img"' in page


def test_the_decision_curve_of_one_class_says_why_it_is_absent(write_run):
    facts = read_facts(write_run(slides=("a",), one_class="a"))
    assert decision_section(facts).absent == "the scored patches hold one class only"


def test_where_a_network_is_better_in_words():
    slides = np.arange(400) % 20
    labels = pd.Series(np.arange(400) // 20 % 2)
    better = decision_curve(labels, np.where(labels == 1, 0.75, 0.25), slides)
    assert better_where(better).endswith("from prob 0.26 to 0.75.")
    assert "is not known" in better_where(decision_curve([0, 1], [0.2, 0.8], ["a", "a"]))
