"""`pcam-ssl plan`: which units there are, where their runs lie, and what is refused before any worker begins."""

import json
from pathlib import Path

import pytest

import pcam_ssl as pcam
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.begin import begin_run
from pcam_ssl.runs.run import Run
from pcam_ssl.units.unit import read_units


@pytest.fixture
def plan(command, slides, tmp_path):
    """plan("smoke", "--seeds", "0,1", ...): the command, with its runs in tmp_path/runs."""
    return lambda *words, data=None: command("plan", *words, "--data", data or slides, "--out", tmp_path / "runs")


@pytest.fixture
def refused(plan, tmp_path):
    """refused(...): the one line with which the command refuses."""

    def refused(*words, **options) -> str:
        done = plan(*words, **options)
        assert (done.code, done.out) == (2, ""), done
        assert not (tmp_path / "runs").exists()
        (line,) = done.problems
        return line

    return refused


def planned(done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_every_fold_of_every_run_is_a_unit(plan, tmp_path):
    units = planned(
        plan("smoke", "metric-smoke", "--sweep", "optim.lr=1e-3,3e-3", "--seeds", "0,1", "--set", "train.batch_size=16")
    )
    assert [unit["unit"] for unit in units] == list(range(24)) and {unit["units"] for unit in units} == {24}
    runs = list(dict.fromkeys(unit["run"] for unit in units))
    assert [Path(run).relative_to(tmp_path / "runs").name for run in runs][:4] == [
        "smoke+1e-3+seed-0",
        "smoke+1e-3+seed-1",
        "smoke+3e-3+seed-0",
        "smoke+3e-3+seed-1",
    ]
    assert len(runs) == 8 and all(Path(run).is_absolute() for run in runs)
    for run in runs:
        assert [unit["fold"] for unit in units if unit["run"] == run] == [0, 1, 2]
    assert {unit["recipe"]["method"]["name"] for unit in units} == {"supervised", "metric"}


def test_a_unit_holds_what_a_worker_needs(plan, slides):
    unit = planned(plan("smoke", "--set", "train.epochs=2", "--folds", "1"))[0]
    assert (unit["fold"], unit["folds"], unit["seed"]) == (1, 3, 0)
    assert unit["dataset"] == str(slides) and unit["dataset_digest"] == pcam.open_dataset(slides).digest
    assert unit["recipe"] == load_recipe("smoke", ["train.epochs=2"]).dump()


def test_runs_of_several_seeds_keep_the_folds(plan):
    units = planned(plan("smoke", "--seeds", "4,5", "--folds", "0"))
    assert [(unit["seed"], unit["recipe"]["cv"]["seed"]) for unit in units] == [(4, 0), (5, 0)]


def test_planning_writes_nothing(plan, tmp_path):
    planned(plan("smoke"))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_in_python_can_be_written_and_read(slides, tmp_path):
    units = pcam.plan("smoke", slides, {"cv.folds": 2}, folds=[1], file=tmp_path / "units.jsonl")
    assert read_units(tmp_path / "units.jsonl") == units and [unit.fold for unit in units] == [1]


def test_of_several_runs_the_one_that_cannot_be_trained_is_named(refused, tmp_path):
    line = refused("smoke", "--set", "neighbours.use=true", "--sweep", "neighbours.k=5,999")
    assert line.startswith(f"{tmp_path}/runs/smoke+999: neighbours.k is 999, fold-0 trains on ")


def test_a_run_of_another_recipe_is_named_once(command, slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, dataset = load_recipe("smoke", ["train.epochs=9"]), {"path": str(slides), "digest": pcam.open_dataset(slides).digest}
    begin_run(Run(Path("runs/smoke+seed-0")), recipe, dataset, "baseline")
    done = command("plan", "smoke", "--data", slides, "--seeds", "0,1", "--out", "runs")
    (line,) = done.problems
    assert done.code == 2 and line.startswith(f"{tmp_path}/runs/smoke+seed-0: begun with another recipe (")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smok"], "--recipe smok: no shipped recipe has that name. Did you mean smoke"),
        (["smoke", "--sweep", "optim.lrr=1,2"], "recipe smoke: unknown key optim."),
        (["smoke", "--sweep", "cv.folds=2,3"], "--sweep cv.folds: changes the folds"),
        (["smoke", "--sweep", "pseudo.rounds=1,2"], "pseudo.rounds=1,2: pseudo-label rounds build on each other"),
        (["smoke", "--sweep", "seed=1,2", "--seeds", "1"], "--sweep seed: the key is set twice"),
        (["smoke", "--sweep", "optim.lr=1e-3,0.001"], "--sweep optim.lr=1e-3: equals optim.lr=0.001"),
        (["smoke", "--folds", "3"], "--folds 3: "),
        (["smoke", "--folds", "0,0"], "--folds 0: is named twice"),
        (["smoke", "--folds", "0-2"], "--folds 0-2: write whole numbers"),
        (["smoke", "--seeds", "1,1"], "--seeds 1: is named twice"),
        (["smoke", "smoke"], "RECIPE smoke: is named twice"),
        (["smoke", "--set", "neighbours.use=true", "--set", "neighbours.k=999"], "neighbours.k is 999"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(refused, words, said):
    assert refused(*words).startswith(said)


def test_runs_that_would_share_a_folder_are_refused(refused, tmp_path):
    assert refused("smoke", "--sweep", "optim.lr=1e-3,1e-3").startswith(f"{tmp_path}/runs/smoke+1e-3: two of the runs would share")
    (tmp_path / "smoke.yaml").write_text("train: {epochs: 2}")
    assert refused("smoke", tmp_path / "smoke.yaml").startswith(f"{tmp_path}/runs/smoke: two of the runs would share this folder")


def test_a_dataset_that_is_not_there_is_refused(refused, tmp_path):
    assert refused("smoke", data=tmp_path / "none").startswith(f"{tmp_path}/none: no such dataset")


def test_a_folder_that_holds_something_else_is_refused(plan, tmp_path):
    (tmp_path / "runs" / "smoke").mkdir(parents=True)
    (tmp_path / "runs" / "smoke" / "notes.txt").touch()
    done = plan("smoke")
    assert (done.code, done.problems) == (
        2,
        [f"{tmp_path}/runs/smoke: holds something that is no run; choose another --out"],
    )
