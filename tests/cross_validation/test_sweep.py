"""`baseline --sweep`: what is planned, that the missing runs are trained and the others left alone, and that one failure costs one run."""

import pytest
import torch

from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.cross_validation import sweep as module
from pcam_ssl.cross_validation.sweep import plan_sweep, sweep
from pcam_ssl.errors import UserError

FAST = ("train.epochs=1", "score.floor=false")


@pytest.fixture(scope="module")
def swept(tiny, slides, tmp_path_factory):
    """A sweep over policies and schedules of which one run fails: its folder and what became of it. Do not write into it."""
    out = tmp_path_factory.mktemp("sweep") / "zoo"
    axes = ["views.policy=none,d4", "schedule.name=one_cycle,cosine"]
    return out, axes, sweep(None, tiny(*FAST), axes, slides, out)


def planned(axes, tmp_path, *settings):
    return plan_sweep(None, list(settings), axes, tmp_path / "zoo")


def test_every_combination_is_a_run_named_by_its_values(tmp_path):
    runs = planned(["model.name=resnet34,hf-hub:owner/net", "views.policy=d4,strong"], tmp_path)
    assert [run.path.name for run in runs] == [
        "resnet34+d4",
        "resnet34+strong",
        "hf-hub-owner-net+d4",
        "hf-hub-owner-net+strong",
    ]
    assert [(run.recipe.model.name, run.recipe.views.policy) for run in runs][3] == ("hf-hub:owner/net", "strong")


def test_a_swept_schedule_clears_the_keys_of_the_one_before(tmp_path):
    runs = plan_sweep("article-resnet34", [], ["schedule.name=cosine,constant"], tmp_path / "zoo")
    assert [run.recipe.schedule.name for run in runs] == ["cosine", "constant"]
    assert runs[0].recipe.model.name == runs[1].recipe.model.name == "resnet34"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (["model.name"], "--sweep model.name: write KEY=VALUE,VALUE"),
        (["model.name=a,,b"], "--sweep model.name=a,,b: write KEY=VALUE,VALUE"),
        (["model.name=resnet18"], "--sweep model.name=resnet18: one value is no sweep"),
        (["model.name=a,a"], "{out}/a: two of the runs would share this folder"),
        (["optim.lr=1e-3,3e-3,0.001"], "--sweep optim.lr=1e-3: equals optim.lr=0.001"),
        (["predict.d4=true,True"], "--sweep predict.d4=true: equals predict.d4=True"),
        (["optim.weight_decay=1,1.0"], "--sweep optim.weight_decay=1: equals optim.weight_decay=1.0"),
        (["model.image_size=null,~"], "--sweep model.image_size=null: equals model.image_size=~"),
        (["seed=1,01", "views.policy=d4,none"], "--sweep seed=1: equals seed=01"),
        (["model.nam=a,b"], "recipe baseline: unknown key model.nam. Did you mean name?"),
        (["views.policy=d4,storng"], "recipe baseline: views.policy: "),
        (["cv.folds=3,5"], "--sweep cv.folds: changes the folds"),
        (["cv.seed=1,2"], "--sweep cv.seed: changes the folds"),
        (["model.name=a,b", "model.name=c,d"], "--sweep model.name: the key is set twice"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_line_before_training(tmp_path, axes, said):
    with pytest.raises(UserError) as refused:
        planned(axes, tmp_path)
    (line,) = refused.value.problems
    assert line.startswith(said.format(out=tmp_path / "zoo"))
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_is_also_set_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--sweep train\.epochs: the key is set twice"):
        planned(["train.epochs=1,2"], tmp_path, "train.epochs=3")


def test_a_swept_seed_changes_the_networks_and_not_the_folds(tmp_path):
    runs = planned(["model.name=resnet18,resnet34", "seed=0,3"], tmp_path)
    assert [run.path.name for run in runs] == ["resnet18+seed-0", "resnet18+seed-3", "resnet34+seed-0", "resnet34+seed-3"]
    assert [(run.recipe.seed, run.recipe.cv.seed) for run in runs] == [(0, 0), (3, 0)] * 2


def test_the_folds_of_a_swept_seed_are_those_of_the_recipe_s_own(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 7\n")
    runs = plan_sweep(str(tmp_path / "mine.yaml"), [], ["seed=1,2"], tmp_path / "zoo")
    assert [(run.recipe.seed, run.recipe.cv.seed) for run in runs] == [(1, 7), (2, 7)]


@pytest.mark.parametrize(("held", "drawn_by"), [("cv.folds_file=runs/a/folds.parquet", 0), ("cv.seed=5", 5)])
def test_the_label_budget_is_held_too_while_the_seed_is_swept(tmp_path, held, drawn_by):
    runs = planned(["seed=1,2"], tmp_path, held)
    assert [(run.recipe.seed, run.recipe.cv.seed) for run in runs] == [(1, drawn_by), (2, drawn_by)]


@pytest.mark.trains
def test_a_sweep_over_seeds_can_be_compared_over_them(tiny, slides, tmp_path):
    result = sweep(None, tiny(*FAST), ["seed=0,1"], slides, tmp_path / "zoo")
    (group,) = compare_runs(list(result.finished))["groups"]
    assert (group["runs"], group["seeds"]) == (["seed-0", "seed-1"], [0, 1])
    assert group["scores"]["nll"]["sd"] > 0


def test_a_sweep_into_a_run_is_refused(finished):
    with pytest.raises(UserError, match=r"--out .*is a run, .*choose another --out"):
        plan_sweep(None, [], ["views.policy=d4,none"], finished.path)


def test_all_runs_are_trained_and_can_be_compared(swept):
    out, _, result = swept
    assert [path.rpartition("/")[2] for path in result.finished] == ["none+one_cycle", "none+cosine", "d4+one_cycle", "d4+cosine"]
    assert result.failed == ()
    assert [run["name"] for run in compare_runs(result.finished)["runs"]] == [path.name for path in map(type(out), result.finished)]


def test_finished_runs_are_left_alone(swept, tiny, slides):
    out, axes, before = swept
    weights = sorted(out.glob("*/fold-*/model.safetensors"))
    times = [path.stat().st_mtime_ns for path in weights]
    assert sweep(None, tiny(*FAST), axes, slides, out) == before
    assert [path.stat().st_mtime_ns for path in weights] == times and len(times) == 8


@pytest.mark.trains
def test_one_failure_costs_one_run(tiny, slides, tmp_path, capsys):
    settings = [setting for setting in tiny(*FAST) if not setting.startswith("model.name=")]
    result = sweep(None, settings, ["model.name=nosuch,test_resnet"], slides, tmp_path / "zoo")
    assert [path.rpartition("/")[2] for path in result.finished] == ["test_resnet"]
    with pytest.raises(UserError, match=r"zoo/nosuch: model\.name: timm has no backbone nosuch"):
        result.raise_failures()
    assert "the other runs continue" in capsys.readouterr().err
    assert not (tmp_path / "zoo" / "nosuch").exists()


@pytest.mark.trains
def test_folds_of_a_sweep_may_be_trained_one_at_a_time(tiny, slides, tmp_path, capsys):
    axes, out = ["views.policy=none,d4"], tmp_path / "zoo"
    assert sweep(None, tiny(*FAST), axes, slides, out, [1]).finished == ()
    assert "0 of 2 runs have all their folds" in capsys.readouterr().err
    assert len(sweep(None, tiny(*FAST), axes, slides, out, [0]).finished) == 2


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """failing(error): what a sweep of two runs returns whose first meets `error`."""

    def failing(error):
        met = []

        def baseline(recipe, data, out, only):
            met.append(out)
            if len(met) == 1:
                raise error

        monkeypatch.setattr(module, "baseline", baseline)
        return sweep(None, [], ["views.policy=none,d4"], "data", tmp_path / "zoo"), met

    return failing


def test_a_run_too_big_for_the_device_fails_alone(failing):
    result, met = failing(torch.OutOfMemoryError("CUDA out of memory"))
    assert len(met) == 2
    assert result.failed[0].endswith(
        "none: out of device memory; lower train.batch_size for the whole sweep, or leave this run out"
    )


def test_a_stop_stops_the_sweep(failing):
    from pcam_ssl.training.checkpoint import Stopped

    with pytest.raises(Stopped):
        failing(Stopped("stopped"))
