"""`label-curve --method rounds` on tiny frozen runs: what rounds gain at each budget, made once, left out without a pool, refused in one line."""

import json
import shutil

import numpy as np
import pytest
from rounds_made import SELECTION

from pcam_ssl.api import label_curve
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.confidence import Groups
from pcam_ssl.label_curve import curve as curve_file
from pcam_ssl.label_curve.band import Scored
from pcam_ssl.label_curve.report import curve_text, page
from pcam_ssl.label_curve.rounds_gain import PointRounds, add_rounds
from pcam_ssl.label_curve.verdict import rounds_sentences
from pcam_ssl.records import read_rounds
from pcam_ssl.runs.run import Run


@pytest.fixture(scope="module")
def draw(slides, tiny, frozen_settings):
    """draw(out, budgets, more settings..., options=...): a curve of tiny frozen runs with a round each."""

    def draw(out, budgets, *more, **options):
        settings = tiny(*frozen_settings, *SELECTION, *more)
        return label_curve(slides, "baseline", settings, out=out, budgets=budgets, **{"seeds": 2, "method": "rounds"} | options)

    return draw


@pytest.fixture(scope="module")
def made(draw, tmp_path_factory):
    """A folder with a curve of 60, 80 and all labels, and what it says. Do not write into it."""
    out = tmp_path_factory.mktemp("curve") / "made"
    return out, draw(out, "60,80,all")


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "copy")


def by_budget(curve, by="patches"):
    return {point["name"]: point for point in curve["curves"][by]["points"]}


def text_of(curve):
    return " ".join(curve_text(curve).split())


def test_a_point_is_the_mean_over_draws_of_what_folds_chose(made):
    out, curve = made
    rounds = by_budget(curve)["60"]["rounds"]
    chosen = [read_rounds(out / f"60-{seed}")["chosen_by_fold"] for seed in (0, 1)]
    assert rounds["auroc"]["value"] == pytest.approx(np.mean([each["out_of_fold"]["auroc"]["value"] for each in chosen]))
    assert rounds["difference"]["value"] == pytest.approx(np.mean([each["against_round_0"]["auroc"]["value"] for each in chosen]))
    assert rounds["made"] == [1, 1] and rounds["stopped"] == [None, None]
    used = [number > 0 for each in chosen for number in each["rounds"].values()]
    assert (rounds["folds_in_rounds"], rounds["folds"]) == (sum(used), 4)


def test_the_labels_alone_score_as_without_rounds(made, draw, copy):
    alone = draw(copy, "60,80,all", method="supervised")
    for name, point in by_budget(alone).items():
        there = by_budget(made[1])[name]
        assert point["auroc"] == there["auroc"] and point["draws"] == there["draws"] and "rounds" not in point


def test_a_budget_without_a_pool_has_no_rounds_and_says_why(made):
    out, curve = made
    why = "fold-0 of seed 0 has no unlabelled patches to learn from"
    assert by_budget(curve)["all"]["rounds"] is None and curve["curves"]["patches"]["rounds"]["left_out"] == {"all": why}
    assert not (out / "all-0" / "round-1").exists() and (out / "60-0" / "round-1").exists()
    assert f"all: no rounds, since {why}." in text_of(curve) and why in page(curve)


def test_table_and_page_show_both_lines(made):
    _, curve = made
    text, shown = text_of(curve), page(curve)
    for name in ("60", "80"):
        point = by_budget(curve)[name]
        assert f"{point['auroc']['value']:.3f} {point['rounds']['auroc']['value']:.3f} (" in text
        assert f"{name} with rounds: {point['rounds']['auroc']['value']:.3f}" in shown
    assert "labels alone, mean over draws" in shown and "with pseudo-label rounds" in shown


def test_commands_name_the_method(made):
    commands = made[1]["commands"]["patches"], made[1]["next_command"]
    assert all("--method rounds --rounds 1" in command for command in commands)


def test_finished_rounds_are_not_made_again(made, draw, copy, monkeypatch):
    asked, plain = [], curve_file.pseudo_label
    monkeypatch.setattr(
        curve_file, "pseudo_label", lambda path, *args, **options: asked.append(path.name) or plain(path, *args, **options)
    )
    again = draw(copy, "60,70,80,all")
    assert asked == ["70-0", "70-1"]
    assert by_budget(again)["60"]["rounds"] == by_budget(made[1])["60"]["rounds"]


def test_a_killed_curve_goes_on_where_it_stopped(made, draw, tmp_path, monkeypatch):
    asked, plain = [], curve_file.pseudo_label

    def killed(path, *args, **options):
        asked.append(path.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return plain(path, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(curve_file, "pseudo_label", killed)
        draw(tmp_path / "out", "60,80,all")
    again = draw(tmp_path / "out", "60,80,all")
    assert [point["rounds"] for point in by_budget(again).values()] == [point["rounds"] for point in by_budget(made[1]).values()]


def test_more_rounds_continue_those_that_are_there(draw, copy):
    first = Run(copy / "60-0" / "round-1").oof
    curve = draw(copy, "60", rounds=2)
    assert by_budget(curve)["60"]["rounds"]["made"] == [2, 2] and Run(copy / "60-0" / "round-1").oof.equals(first)


def test_a_curve_of_slides_keeps_the_rounds_of_the_other(made, draw, copy):
    curve = draw(copy, "10", by="slides")
    assert by_budget(curve)["60"]["rounds"]["difference"] == pytest.approx(by_budget(made[1])["60"]["rounds"]["difference"])
    assert by_budget(curve, "slides")["10"]["rounds"]["made"] == [1, 1]


def test_a_stop_before_round_1_compares_the_labels_alone_with_themselves_and_says_so(draw, tmp_path):
    curve = draw(tmp_path / "out", "60", "pseudo.stop_share=0.9", seeds=1)
    rounds = by_budget(curve)["60"]["rounds"]
    assert rounds["made"] == [0] and rounds["difference"]["value"] == 0 and not rounds["gains"]
    assert "60: stopped early in 1 of 1 draws, with seed 0 before round 1" in text_of(curve) and "pseudo.stop_share=0.9" in text_of(
        curve
    )


def test_a_row_of_the_table_has_rounds_where_they_are(made):
    table = made[1].table.set_index("budget")
    assert table.loc["60", "rounds_gain"] == by_budget(made[1])["60"]["rounds"]["difference"]["value"]
    assert np.isnan(table.loc["all", "rounds"])


def test_file_and_command_hold_the_same(made, command, slides, tiny, frozen_settings):
    out, curve = made
    words = [word for setting in tiny(*frozen_settings, *SELECTION) for word in ("--set", setting)]
    shared = ("label-curve", "baseline", "--data", slides, "--budgets", "60,80,all", "--seeds", "2", "--out", out)
    done = command(*shared, "--method", "rounds", *words)
    assert done.code == 0 and done.out == curve_text(curve, "patches") + "\n"
    assert json.loads((out / "label-curve.json").read_text()) == curve


def with_gains(over_alone, over_control):
    """A curve of one budget and two draws, whose rounds lie this far above the labels alone and the control."""
    own, noise = 0.9, np.linspace(-0.001, 0.001, 50)
    aurocs, drawn = {}, {}
    for path in ("a", "b"):
        for name, value in ((path, own - over_alone), (f"{path}/own", own), (f"{path}/control", own - over_control)):
            aurocs[name] = value
            drawn[name] = value + noise * (name == f"{path}/own")
    scored = Scored(np.array([0, 1]), 40, "", Groups(n=40, rarer=40, effective=40.0), aurocs, drawn)
    read = {path: PointRounds(None, True, 1, None, [1, 0]) for path in ("a", "b")}
    points = [{"name": "100", "runs": ["a", "b"]}]
    return add_rounds({"points": points, "seeds": [0, 1], "unit": "labels"}, 1, {}, read, scored)


@pytest.mark.parametrize(
    ("over_alone", "over_control", "gains"),
    [(0.02, 0.02, True), (0.02, 0.0, False), (0.0, 0.02, False), (-0.02, 0.02, False)],
    ids=["over both", "not over the control", "over the control only", "a loss"],
)
def test_a_gain_is_one_over_the_labels_alone_and_over_the_control(over_alone, over_control, gains):
    one = with_gains(over_alone, over_control)
    assert one["rounds"]["gaining"] == (["100"] if gains else [])
    said = " ".join(rounds_sentences(one))
    assert ("over the control at 100 labels" in said) == gains and ("At none of 1 budget" in said) == (not gains)
    assert ("A measurable loss against the labels alone at 100." in said) == (over_alone < 0)


BAD = {
    "no method": ({"method": "rouns"}, "--method rouns: choose supervised or rounds. Did you mean rounds?"),
    "no rounds": ({"rounds": 0}, "--rounds 0: ask for at least one round"),
    "not asked for": ({"method": "supervised", "rounds": 2}, "--rounds 2: only with --method rounds"),
    "no pool": (
        {"budgets": "all"},
        "--method rounds: no budget leaves a pool for rounds; with all fold-0 of seed 0 has no unlabelled",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_asked_is_told_in_one_line_and_nothing_is_written(draw, tmp_path, case):
    options, said = BAD[case]
    options = {"budgets": "60", **options}
    with pytest.raises(UserError) as refused:
        draw(tmp_path / "out", options.pop("budgets"), **options)
    (line,) = refused.value.problems
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_method_that_learns_from_the_pool_has_no_rounds(slides, tiny, tmp_path):
    with pytest.raises(UserError, match="baseline: method fixmatch learns from the pool already"):
        label_curve(slides, "baseline", tiny("method.name=fixmatch"), budgets="60", method="rounds", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pooled_rounds_have_no_curve(draw, tmp_path):
    with pytest.raises(UserError, match=r"pseudo\.pooled: scores of pooled rounds are withheld"):
        draw(tmp_path / "out", "60", "pseudo.pooled=true")


def test_rounds_of_another_recipe_are_refused_before_anything_is_trained(draw, copy):
    with pytest.raises(UserError, match=r"round-1: made with another recipe \(pseudo\.k_best: 5 -> 6\)"):
        draw(copy, "60,70", "pseudo.k_best=6")
    assert not (copy / "70-0").exists()
