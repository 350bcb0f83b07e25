"""The verdict names the problems of a score, the worst first."""

import pytest

from pcam_ssl.report.verdict import judge, what_was_done
from pcam_ssl.runs.contents import read_facts

NO_SLIDES = (None,) * 12


@pytest.fixture
def verdict(write_run):
    return lambda **choices: judge(read_facts(write_run(**choices)))


def test_grouped_and_above_the_floor_can_be_believed(verdict):
    found = verdict()
    assert (found.level, found.badge) == ("good", "Can be believed")
    assert (
        found.headline
        == "Every slide was scored by a network that was not trained on it, and the network is better than colour alone."
    )
    assert found.remarks == ()


@pytest.mark.parametrize("name", ["tumor", "normal"])
def test_few_slides_of_a_class_are_a_doubt(write_run, edit, name):
    run = write_run()
    edit(run.paths.scores, lambda scores: scores["out_of_fold"].update({f"n_slides_{name}": 9}))
    found = judge(read_facts(run))
    assert (found.level, found.headline) == (
        "care",
        f"Only 9 of 12 slides hold {name} patches, so every score depends on these few; score more such slides.",
    )


def test_random_folds_are_a_leak(verdict):
    found = verdict(
        torn=True,
        marks={"scheme": "random", "grouping": "none", "slides_shared_across_folds": True, "notes": ["cv.scheme random: no"]},
    )
    assert (found.level, found.badge) == ("bad", "Do not believe")
    assert found.headline == (
        "The score is too good: patches of the same slides were both trained on and scored (12 of 12 slides are in two folds or more)."
    )
    assert found.remarks == ()


def test_random_folds_without_slide_ids_are_a_leak_too(verdict):
    marks = {"scheme": "random", "grouping": "none", "slides_shared_across_folds": True}
    assert "folds were drawn patch by patch" in verdict(slides=NO_SLIDES, marks=marks).headline


def test_torn_slides_are_counted_whatever_scores_json_says(verdict):
    assert verdict(torn=True).level == "bad"


def test_a_choice_on_the_scored_fold_is_marked(verdict):
    found = verdict(marks={"selected_on_fold": True})
    assert found.level == "bad"
    assert "selected_on_fold" in found.headline


def test_proxy_groups_are_read_with_care(verdict):
    found = verdict(slides=NO_SLIDES, marks={"grouping": "stain clusters", "notes": ["import again with --wsi CSV"]})
    assert found.level == "care"
    assert found.headline == "The score may be too good: folds are grouped by stain clusters (proxy groups) instead of slides."
    assert found.remarks == ("import again with --wsi CSV",)


def test_a_published_split_without_slides_was_not_checked(verdict):
    found = verdict(slides=NO_SLIDES, marks={"scheme": "official", "grouping": "stain clusters"})
    assert (found.level, "published split was not checked" in found.headline) == ("care", True)


def test_no_gain_over_colour(verdict):
    found = verdict(skill=1.0, floor_skill=1.0)
    assert found.level == "care"
    assert (
        found.headline == "The network is not measurably better than colour alone (boosted trees on colour histograms, same folds)."
    )


def test_worse_than_colour(verdict):
    assert verdict(skill=0.5, floor_skill=3.0).headline.startswith("The network is worse than colour alone")


def test_a_score_at_chance_level(verdict):
    assert verdict(skill=0.0, floor=False).headline == "The score is not distinguishable from chance: its interval reaches 0.5."


def test_without_floor_the_verdict_says_so(verdict):
    found = verdict(floor=False)
    assert found.headline == "Every slide was scored by a network that was not trained on it."
    assert found.remarks[0].startswith("No colour baseline was computed (score.floor)")


def test_one_class_has_no_auroc(verdict):
    found = verdict(slides=("a",), one_class="a")
    assert found.headline == "There is no AUROC: the scored patches hold one class only."


def test_one_slide_says_nothing_about_others(verdict):
    assert verdict(slides=("only",)).headline.startswith(
        "The uncertainty of the score is not known: fewer than two slides hold the rarer class"
    )


def test_held_out_slides_below_the_interval_are_a_doubt(write_run, edit):
    run = write_run(held_out=True)
    edit(run.paths.scores, lambda scores: scores["held_out"]["test"]["scores"]["auroc"].update(value=0.6))
    found = judge(read_facts(run))
    assert (found.level, found.headline) == (
        "care",
        "AUROC on held-out slides (test) is 0.600, below the out-of-fold interval.",
    )


def test_the_leak_stands_before_the_doubt(verdict):
    found = verdict(torn=True, skill=0.5, floor_skill=3.0)
    assert "trained on and scored" in found.headline
    assert any("worse than colour" in remark for remark in found.remarks)


def test_what_was_done(write_run):
    assert what_was_done(read_facts(write_run())) == [
        ("Trained", "resnet18 from published weights, 10 epochs"),
        ("Scored on", "288 patches (192 tumor) of 12 slides, 12 with tumor, dataset some slides"),
        ("Folds", "2 folds grouped by slides; 0 of 12 slides are in two folds or more (counted for this page)"),
        ("Epoch kept", "the last: nothing was chosen by score"),
    ]


def test_a_label_budget_is_said(write_run):
    run = write_run()
    run.paths.recipe.write_text("data:\n  label_budget: 1000\n")
    assert dict(what_was_done(read_facts(run)))["Scored on"].endswith("only 1,000 labels were trained on")
