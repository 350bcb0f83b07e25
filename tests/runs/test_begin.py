"""A run folder belongs to one recipe, dataset and command; another one is refused with the difference."""

import os

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.begin import find_run
from pcam_ssl.runs.run import Run

DATASET = {"path": "data/a", "digest": "a" * 64}


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
