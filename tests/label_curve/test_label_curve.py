"""Label curves on tiny frozen runs: nested draws on the same scored patches, trained once, continued, compared, and refused in one line."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest

from pcam_ssl.api import label_curve
from pcam_ssl.cross_validation import cross_validate
from pcam_ssl.errors import UserError
from pcam_ssl.label_curve.band import read_run_folds
from pcam_ssl.label_curve.budgets import parse_budgets, plan_points
from pcam_ssl.label_curve.report import curve_text, page
from pcam_ssl.runs.run import Run
from pcam_ssl.training.checkpoint import Stopped


@pytest.fixture(scope="module")
def draw(slides, tiny, frozen_settings):
    """draw(out, budgets, by="patches", seeds=2, more settings...): a curve of tiny frozen runs."""

    def draw(out, budgets, by="patches", seeds=2, *more, data=None):
        return label_curve(data or slides, "baseline", tiny(*frozen_settings, *more), budgets=budgets, by=by, seeds=seeds, out=out)

    return draw


@pytest.fixture(scope="module")
def patches(draw, tmp_path_factory):
    """A folder with a curve of patches, and what it says. Do not write into it."""
    out = tmp_path_factory.mktemp("curve") / "patches"
    return out, draw(out, "60,80,all")


@pytest.fixture(scope="module")
def both(patches, draw, tmp_path_factory):
    """A copy of it with a curve of slides, too."""
    out = tmp_path_factory.mktemp("curve") / "both"
    shutil.copytree(patches[0], out)
    return out, draw(out, [10, 14, "all"], "slides")


def folds(out, name):
    return read_run_folds(Run(out / name)).frame


def test_draws_are_nested_and_folds_those_of_the_seed(patches):
    out, _ = patches
    names = ["60", "80", "all"]
    for seed in (0, 1):
        frames = [folds(out, f"{name}-{seed}") for name in names]
        shown = [set(frame.id[frame.visible]) for frame in frames]
        assert [len(each) for each in shown] == [60, 80, 160]
        assert all(small < large for small, large in pairwise(shown))
        assert all(frame.fold.equals(frames[0].fold) for frame in frames)
    assert set(folds(out, "60-0").id[folds(out, "60-0").visible]) != set(folds(out, "60-1").id[folds(out, "60-1").visible])


def test_every_run_scores_the_same_patches(patches):
    _, curve = patches
    scored = [set(Run(path).oof.id) for point in curve["curves"]["patches"]["points"] for path in point["runs"]]
    assert len(scored) == 6 and all(each == scored[0] for each in scored) and len(scored[0]) == curve["n"] == 160


def test_a_point_is_the_mean_over_draws_with_what_networks_saw(patches):
    out, curve = patches
    point = curve["curves"]["patches"]["points"][1]
    runs = [Run(out / f"80-{seed}") for seed in (0, 1)]
    values = [run.scores.file["out_of_fold"]["scores"]["auroc"]["value"] for run in runs]
    assert point["draws"]["values"] == pytest.approx(values) and point["auroc"]["value"] == pytest.approx(np.mean(values))
    # Two folds: each label trains one network.
    assert point["labels"] == 40 and point["auroc"]["low"] < point["auroc"]["value"] < point["auroc"]["high"]


def test_with_one_draw_the_band_is_the_interval_of_the_run(draw, tmp_path):
    curve = draw(tmp_path / "one", "80", seeds=1)
    (point,) = curve["curves"]["patches"]["points"]
    score = Run(tmp_path / "one" / "80-0").scores.file["out_of_fold"]["scores"]["auroc"]
    assert {key: point["auroc"][key] for key in ("value", "low", "high")} == pytest.approx(
        {key: score[key] for key in ("value", "low", "high")}
    )
    assert point["draws"]["sd"] is None and curve["curves"]["patches"]["doubled"] is None
    assert "cannot be told from 1 budget: a curve needs 3 or more" in curve_text(curve)


def test_the_file_holds_what_is_returned_and_the_page_shows_it(patches):
    out, curve = patches
    assert json.loads((out / "label-curve.json").read_text()) == curve
    shown = (out / "label-curve.html").read_text()
    assert shown == page(curve) and "AUROC by labels" in shown and "<script" not in shown
    for point in curve["curves"]["patches"]["points"]:
        assert f"{point['auroc']['value']:.3f}" in shown


def test_no_point_writes_a_page_or_a_colour_baseline(patches):
    out, _ = patches
    assert [path for name in ("report.html", "floor.parquet") for path in out.glob(f"*/{name}")] == []


def test_it_says_what_twice_as_many_would_bring_and_what_else_would_tell(patches):
    out, curve = patches
    text, doubled = curve_text(curve), curve["curves"]["patches"]["doubled"]
    assert doubled["n"] == 160 and f"{doubled['gain']['value']:+.3f}" in text
    command = curve["next_command"]
    assert "--by slides --seeds 2" in command and f"--out {out}" in command and " ".join(command.split()) in " ".join(text.split())
    assert f"page {out / 'label-curve.html'}" in text


def test_more_budgets_continue_a_curve_and_nothing_is_trained_twice(patches, draw, tmp_path, monkeypatch):
    out = tmp_path / "more"
    shutil.copytree(patches[0], out)
    trained = []
    plain = cross_validate.baseline
    monkeypatch.setattr(
        cross_validate, "baseline", lambda recipe, data, path: trained.append(path.name) or plain(recipe, data, path)
    )
    curve = draw(out, "60,100,all")
    assert trained == ["100-0", "100-1"]
    assert [point["name"] for point in curve["curves"]["patches"]["points"]] == ["60", "100", "all"]
    assert curve["curves"]["patches"]["points"][0] == {
        **patches[1]["curves"]["patches"]["points"][0],
        "runs": [str(out / "60-0"), str(out / "60-1")],
    }


def test_a_stopped_curve_goes_on_where_it_stopped(draw, tmp_path, monkeypatch):
    whole = draw(tmp_path / "whole", "60,80,all", seeds=1)
    plain, calls = cross_validate.train_missing, []

    def killed(context, unit):
        calls.append(unit.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        plain(context, unit)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(cross_validate, "train_missing", killed)
        draw(out, "60,80,all", seeds=1)
    assert not (out / "label-curve.json").exists() and (out / "60-0" / "scores.json").exists()
    again = draw(out, "60,80,all", seeds=1)
    values = [[point["draws"]["values"] for point in curve["curves"]["patches"]["points"]] for curve in (whole, again)]
    assert values[0] == values[1]


class TestSlides:
    def test_whole_slides_are_nested_and_all_is_the_same_run(self, both):
        out, curve = both
        shown = [set(folds(out, name).group[folds(out, name).visible]) for name in ("10-slides-0", "14-slides-0", "all-0")]
        assert shown[0] < shown[1] < shown[2] and list(map(len, shown)) == [10, 14, 20]
        points = curve["curves"]["slides"]["points"]
        assert [point["slides"] for point in points] == [5, 7, 10]
        assert points[2]["runs"] == curve["curves"]["patches"]["points"][2]["runs"]

    def test_the_other_curve_is_kept_and_compared_on_the_same_draws(self, both):
        _, curve = both
        found = curve["patches_or_slides"]
        points = {by: {point["name"]: point for point in one["points"]} for by, one in curve["curves"].items()}
        assert [point["slides"] for point in found["points"]] == ["10", "14"] and found["seeds"] == [0, 1]
        # 80 labels of 10 slides, and the curve of patches has a point at 80 labels.
        spread, few = (points[by][name]["auroc"]["value"] for by, name in (("patches", "80"), ("slides", "10")))
        assert found["points"][0]["difference"]["value"] == pytest.approx(spread - few)
        assert found["mean"]["value"] == pytest.approx(np.mean([point["difference"]["value"] for point in found["points"]]))
        assert found["mean"]["low"] < found["mean"]["value"] < found["mean"]["high"]
        assert curve["next_command"] is None and "few slides" in curve_text(curve)

    def test_each_curve_has_the_command_that_made_it(self, both):
        commands = both[1]["commands"]
        assert "--budgets 60,80,all --by patches" in commands["patches"] and "--budgets 10,14,all --by slides" in commands["slides"]


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        ((0.01, 0.03), "More slides help more"),
        ((-0.03, -0.01), "More patches of the same slides help more"),
        ((-0.1, 0.1), "cannot be told"),
    ],
)
def test_the_sentence_follows_the_interval(both, sign, said):
    curve = json.loads(json.dumps(both[1]))
    curve["patches_or_slides"]["mean"] = {"value": sum(sign) / 2, "low": sign[0], "high": sign[1]}
    assert said in " ".join(curve_text(curve).split())


BAD = {
    "too many": ({"budgets": "60,161"}, "--budgets 161: there are 160 labels to train on; ask for at most that many, or all"),
    "too many slides": (
        {"budgets": "21", "by": "slides"},
        "--budgets 21: there are 20 slides to train on; ask for at most that many, or all",
    ),
    "one class": ({"budgets": "2,60"}, "--budgets 2, seed 0: fold 0 "),
    "a word": ({"budgets": "32,most"}, "--budgets 32,most: most is no budget; write whole numbers from 2, or all"),
    "nothing": ({"budgets": ""}, "--budgets : nothing is no budget"),
    "one": ({"budgets": "1"}, "--budgets 1: 1 is no budget"),
    "a fraction": ({"budgets": "32.5"}, "--budgets 32.5: 32.5 is no budget"),
    "twice": ({"budgets": "32,032"}, "--budgets 32,032: 032 is named twice"),
    "no unit": ({"budgets": "32", "by": "slide"}, "--by slide: choose patches or slides. Did you mean slides?"),
    "no seed": ({"budgets": "32", "seeds": 0}, "--seeds 0: ask for 1 to 100"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_told_in_one_line_and_nothing_is_written(draw, tmp_path, case):
    options, said = BAD[case]
    with pytest.raises(UserError) as refused:
        draw(tmp_path / "out", **options)
    (line,) = refused.value.problems
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("cv.seed=3",), "cv.seed: a curve draws other labels with each seed"),
        (("cv.scheme=random",), "--by slides: cv.scheme random splits slides"),
    ],
)
def test_a_recipe_that_allows_no_such_curve_is_refused(draw, tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        draw(tmp_path / "out", "6,8", "slides", 1, *more)


def test_a_folder_of_another_recipe_or_dataset_is_refused(patches, draw, slides, rewrite, tmp_path):
    out, _ = patches
    before = sorted(out.rglob("*"))
    with pytest.raises(UserError, match=r"60-0: made with another recipe \(optim\.c: 0\.01 -> 0\.02\); choose another --out"):
        draw(out, "100", "patches", 1, "optim.c=0.02")
    fewer = rewrite(slides, tmp_path / "fewer", lambda patches: patches[patches.index != 3])
    with pytest.raises(UserError, match=r"60-0: made on dataset .*; choose another --out"):
        draw(out, "100", data=fewer)
    with pytest.raises(UserError, match=r"is a run, and a curve needs a folder for its runs"):
        draw(out / "60-0", "100")
    assert sorted(out.rglob("*")) == before


def test_budgets_are_sorted_and_all_comes_last():
    assert parse_budgets("all, 300,100") == [100, 300, None]


def test_a_recipe_with_a_budget_of_its_own_is_drawn_by_the_curve(tiny_recipe, tmp_path):
    points = plan_points(tiny_recipe("data.label_budget=40"), [5, None], "slides", 2, tmp_path)
    assert [(point.recipe.data.label_budget, point.recipe.data.slide_budget) for point in points] == [(None, 5), (None, None)] * 2
    assert [point.path.name for point in points] == ["5-slides-0", "all-0", "5-slides-1", "all-1"]


def test_the_command_prints_tables_or_json(patches, command, slides, tiny, frozen_settings):
    out, curve = patches
    words = [word for setting in tiny(*frozen_settings) for word in ("--set", setting)]
    shared = ("label-curve", "baseline", "--data", slides, "--budgets", "60,80,all", "--seeds", "2", "--out", out, *words)
    done = command(*shared)
    assert done.code == 0 and done.out == curve_text(curve, "patches") + "\n"
    assert json.loads(command(*shared, "--json").out) == curve
