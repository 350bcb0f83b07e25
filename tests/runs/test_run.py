import json
import os

import pytest

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json, write_json
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.records import read_metrics
from pcam_ssl.runs.run import Metrics, Run, begin_run, find_run, lock_file, run_in_use

DATASET = {"path": "data/a", "digest": "a" * 64}


@pytest.fixture
def begun(tmp_path):
    run = find_run(tmp_path / "run", load_recipe("smoke"), DATASET, "baseline")
    begin_run(run, load_recipe("smoke"), DATASET, "baseline")
    return run


def refusal(run: Run, recipe=None, dataset=DATASET, command="baseline") -> str:
    with pytest.raises(UserError) as caught:
        find_run(run.path, recipe or load_recipe("smoke"), dataset, command)
    return str(caught.value)


def test_a_run_says_what_it_was_made_of(begun):
    info = begun.info()
    assert begun.recipe == load_recipe("smoke")
    assert (info["command"], info["status"], info["dataset_digest"]) == ("baseline", "begun", "a" * 64)
    assert {"python", "torch", "timm", "pcam-ssl"} <= set(info["versions"])


def test_the_same_command_finds_its_run(begun):
    assert find_run(begun.path, load_recipe("smoke"), DATASET, "baseline") == begun


def test_machine_keys_may_change(begun):
    assert find_run(begun.path, load_recipe("smoke", ["train.workers=4"]), DATASET, "baseline") == begun


def test_another_recipe_is_refused_with_the_difference(begun):
    text = refusal(begun, load_recipe("smoke", ["train.epochs=9", "seed=3"]))
    assert (
        text
        == f"{begun.path}: begun with another recipe (seed: 0 -> 3; train.epochs: 4 -> 9); choose another --out, or delete that folder"
    )


def test_another_dataset_is_refused_with_both_digests(begun):
    text = refusal(begun, dataset={"path": "data/b", "digest": "b" * 64})
    assert f"begun on dataset {os.getcwd()}/data/a (aaaaaaaaaaaa), this is data/b (bbbbbbbbbbbb); choose another --out" in text


def test_another_command_is_refused(begun):
    assert "a run of `pcam-ssl baseline`, not of `pcam-ssl metric-train`" in refusal(begun, command="metric-train")


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()
    assert refusal(Run(tmp_path)) == f"{tmp_path}: holds something that is no run; choose another --out"


def test_a_recipe_of_the_users_own_is_something_else(tmp_path):
    (tmp_path / "recipe.yaml").write_text("train: {epochs: 3}")
    assert "holds something that is no run" in refusal(Run(tmp_path))


def test_a_kill_before_run_json_leaves_a_folder_that_can_be_begun(begun):
    begun.paths.provenance.unlink()
    (begun.path / ".recipe.yaml.123.part").touch()
    assert find_run(begun.path, load_recipe("smoke", ["seed=5"]), DATASET, "baseline") == begun


def test_no_run_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(UserError, match=r"no run there; `pcam-ssl baseline --out .*` makes one"):
        Run(tmp_path).info()


def test_a_dataset_in_place_of_a_run_is_told_with_the_command_that_trains_one(slides):
    for asked in (lambda: Run(slides).info(), lambda: run_in_use(slides, number=1)):
        with pytest.raises(UserError) as refused:
            asked()
        assert (
            str(refused.value)
            == f"{slides}: is a dataset, and a run is needed; `pcam-ssl baseline --data {slides}` trains one on it"
        )


def test_rounds_on_a_dataset_train_no_round_0_in_its_folder(slides, command):
    done = command("pseudo-label", slides, "--data", slides)
    assert done.code == 2 and done.problems == [
        f"{slides}: is a dataset, and a run is needed; `pcam-ssl baseline --data {slides}` trains one on it"
    ]


def test_commands_that_messages_name_quote_paths(tmp_path):
    folder = tmp_path / "my runs"
    with pytest.raises(UserError) as refused:
        Run(folder).info()
    assert f"`pcam-ssl baseline --out '{folder}'`" in str(refused.value)
    with pytest.raises(UserError) as refused:
        run_in_use(folder, number=1)
    assert f"`pcam-ssl pseudo-label '{folder}'`" in str(refused.value)
    with pytest.raises(UserError) as refused:
        open_dataset(folder)
    assert f"`pcam-ssl data import SOURCE '{folder}'`" in str(refused.value)


def test_a_damaged_run_json(begun):
    begun.paths.provenance.write_text('{"command": "base')
    with pytest.raises(UserError, match=r"run.json: damaged \(.*\); delete .*, and the command that made it makes it again"):
        begun.info()


def test_update_keeps_other_facts(begun):
    begun.update(status="done")
    assert (begun.info()["status"], begun.info()["command"]) == ("done", "baseline")


def test_a_second_holder_is_told_who_is_first(tmp_path):
    with lock_file(tmp_path / ".lock", "the run"), pytest.raises(UserError) as caught, lock_file(tmp_path / ".lock", "the run"):
        pass
    assert str(caught.value).startswith(f"the run: process {os.getpid()} on ")
    assert str(caught.value).endswith("is writing it; wait for it or stop it, or choose another --out")


def test_a_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with lock_file(tmp_path / "run" / ".lock", "the run"):
            assert read_json(tmp_path / "run" / ".lock.holder.json")["pid"] == os.getpid()


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with lock_file(tmp_path / "run" / ".lock", "the run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_something_was_written_stays(tmp_path):
    with lock_file(tmp_path / "run" / ".lock", "the run"):
        write_json(tmp_path / "run" / "run.json", {})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "run.json"]


@pytest.mark.parametrize("name", ["taken", "taken/inside"])
def test_a_file_in_the_way_is_refused(tmp_path, name):
    (tmp_path / "taken").touch()
    with (
        pytest.raises(UserError, match=f"{name}: a file has that name; choose another --out"),
        lock_file(tmp_path / name / ".lock", "x"),
    ):
        pass


def test_metrics_come_back_in_order(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    metrics.write(step=1, loss=0.5)
    metrics.write(step=2, loss=None)
    assert read_metrics(metrics.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_rewind_drops_what_will_be_written_again_and_a_line_cut_short(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for step in (4, 8, 12):
        metrics.write(step=step)
    with open(metrics.path, "a") as handle:
        handle.write('{"step": 1')
    metrics.rewind(8)
    metrics.write(step=12, again=True)
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == [
        {"step": 4},
        {"step": 8},
        {"step": 12, "again": True},
    ]


def test_no_metrics_yet(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
