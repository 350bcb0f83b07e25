"""The model card: intended use, scores and limitations, from the same facts as the page."""

import json

import pytest
from markdown_it import MarkdownIt

from pcam_ssl.recipe.loading import load_recipe, to_yaml
from pcam_ssl.report.model_card import model_card
from pcam_ssl.report.verdict import judge
from pcam_ssl.runs.contents import read_facts

HOSTILE = "<script>alert(1)</script>|x"


@pytest.fixture
def card(write_run):
    """card(run=None, **choices): the model card of a run."""

    def card(run=None, **choices):
        facts = read_facts(run or write_run(**choices))
        return model_card(facts, judge(facts))

    return card


def test_says_first_that_it_is_not_for_diagnosis(card):
    assert card().splitlines()[:3] == ["# Model card: run", "", "**For research. Not for diagnosis.**"]


def test_has_every_part_that_a_reader_looks_for(card):
    titles = [line.removeprefix("## ") for line in card().splitlines() if line.startswith("## ")]
    assert titles == [
        "Intended use",
        "Out-of-scope use",
        "Model details",
        "Data",
        "Training",
        "Scores",
        "Scores by slide",
        "Limitations",
        "Reproduction",
    ]


def test_scores_stand_with_their_intervals_beside_the_floor_and_the_held_out(card, write_run):
    run = write_run(held_out=True)
    scores = json.loads(run.paths.scores.read_text())
    cells = [
        f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
        for score in (scores[part]["scores"]["auroc"] for part in ("out_of_fold", "floor", "out_of_fold"))
    ]
    assert f"| AUROC | {' | '.join(cells)} |" in card(run)


def test_slides_of_one_class_have_no_auroc_and_do_not_count_in_its_spread(card):
    shown = card(one_class="slide-05")
    assert "AUROC, the 11 slides with both classes: " in shown
    assert "| slide-05 | 24 | 0 | - |" in shown


def test_many_slides_are_shown_as_the_least_accurate(card):
    assert "The 20 least accurate; scores.json has all:" in card(slides=tuple(f"s{i}" for i in range(30)), patches=6)


def test_unknown_slides_are_said(card):
    assert "Not known: the data has no slide ids." in card(slides=(None,) * 12)


def test_a_leak_is_the_first_limit(card):
    shown = card(torn=True, marks={"scheme": "random", "grouping": "none", "slides_shared_across_folds": True})
    limits = shown[shown.index("## Limitations") :].splitlines()
    assert limits[2].startswith("- The score is too good: patches of the same slides were both trained on and scored")


def test_a_fold_without_calibration_is_a_limit(card, write_run, edit):
    run = write_run()
    edit(run.fold(1) / "fold.json", lambda facts: facts["calibration"].update(reason="one class only"))
    assert "- Not calibrated: fold 1: one class only." in card(run)


def test_the_floor_is_a_limit_where_it_is_known(card):
    assert "- Colour alone reaches AUROC 0." in card()


def test_no_floor_is_said(card):
    assert "No colour baseline was computed" in card(floor=False)


def test_a_refit_network_is_named_and_its_missing_score_is_a_limit(card, write_run, edit):
    run = write_run()
    (run.path / "refit").mkdir()
    (run.path / "refit" / "fold.json").write_text("{}")
    shown = card(run)
    assert "model.safetensors in fold-0, fold-1, refit" in shown
    assert "- The network in refit/ was trained on all labelled slides" in shown


def test_text_from_data_stays_text(card, write_run, edit):
    run = write_run(name="run <b>", slides=(HOSTILE, *(f"slide-{i}" for i in range(11))), marks={"notes": [HOSTILE]})
    edit(run.paths.provenance, lambda info: info.update(dataset=HOSTILE, device=HOSTILE))
    shown = card(run)
    html = MarkdownIt("commonmark").enable("table").render(shown)
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;|x") >= 3
    assert html.count("<td") == 12 * len(("score", "network", "floor")) + 12 * len(
        ("slide", "patches", "tumor", "AUROC", "accuracy")
    )


def test_the_same_run_gives_the_same_card(card, write_run):
    run = write_run()
    assert card(run) == card(run)


@pytest.mark.parametrize(("pretrained", "lines"), [("true", 1), ("false", 0)])
def test_names_the_foundation_model_whose_weights_the_networks_hold_and_its_licence(card, write_run, pretrained, lines):
    run = write_run()
    recipe = load_recipe(None, ["model.name=virchow2", f"model.pretrained={pretrained}"])
    run.paths.recipe.write_text(to_yaml(recipe))
    shown = [line for line in card(run).splitlines() if "licence" in line]
    assert len(shown) == lines
    assert all("Backbone: Virchow2 (" in line and "CC-BY-NC-ND-4.0" in line and "paige-ai/Virchow2" in line for line in shown)


def test_other_backbones_have_no_licence_line(card):
    assert "licence" not in card()
