"""Runs of one recipe with several seeds: grouping, names of groups, and their values."""

import json

import numpy as np
import pytest
import scored

from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.files import read_json, write_json


def write(folder, name, skill, seed, *settings):
    """A run of a recipe with a seed; other skill, other network."""
    named = (f"model.name=net{skill}", f"seed={seed}", *settings)
    return str(scored.write_scored(folder / name, seed=10 * skill + seed, skill=skill, settings=named).path)


def groups(specs):
    found = compare_runs(specs)["groups"]
    return found and [(group["name"], group["runs"]) for group in found]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two recipes with three seeds each, as a sweep lays them down."""
    folder = tmp_path_factory.mktemp("zoo")
    return [write(folder, f"net{skill}+seed-{seed}", skill, seed, "cv.seed=0") for skill in (1, 4) for seed in (0, 1, 2)]


def test_runs_that_differ_in_the_seed_alone_are_one_group(zoo):
    names = [[f"net{skill}+seed-{seed}" for seed in (0, 1, 2)] for skill in (1, 4)]
    assert groups(zoo) == [("net1", names[0]), ("net4", names[1])]


def test_means_and_differences_are_those_of_the_runs(zoo):
    found = compare_runs(zoo)
    first, second = found["groups"]
    aurocs = np.array([run["scores"]["auroc"]["value"] for run in found["runs"]])
    assert first["scores"]["auroc"]["value"] == pytest.approx(aurocs[:3].mean())
    assert second["against_first"]["auroc"]["value"] == pytest.approx(aurocs[3:].mean() - aurocs[:3].mean())
    assert (first["seeds"], first["against_first"], second["against_first"]["auroc"]["seeds_counted"]) == ([0, 1, 2], None, True)
    assert json.loads(json.dumps(found)) == found


def test_without_a_second_seed_there_are_no_groups(zoo):
    assert compare_runs([zoo[0], zoo[3]])["groups"] is None


def test_a_run_named_twice_is_no_second_seed(zoo):
    assert compare_runs([zoo[0], zoo[0]])["groups"] is None
    assert groups([zoo[0], zoo[0], zoo[1]])[0][1] == ["net1+seed-0 #1", "net1+seed-1"]


@pytest.mark.parametrize(
    ("changed", "alike"),
    [
        ("cv.seed=0", True),
        ("train.workers=3", True),
        ("pseudo.k_best=3", True),
        ("train.epochs=3", False),
        ("data.label_budget=50", False),
    ],
)
def test_what_makes_another_recipe(tmp_path, changed, alike):
    pair = [write(tmp_path, "a", 1, 0), write(tmp_path, "b", 1, 1, changed)]
    assert (groups(pair) is not None) is alike


def test_rounds_are_grouped_by_their_number_and_round_0(tmp_path):
    """Rounds 1 and 2 of runs with two seeds, and round 1 of another recipe's."""
    specs = []
    for name, skill, seed in (("a", 1, 0), ("b", 1, 1), ("c", 2, 2)):
        start = write(tmp_path, name, skill, seed)
        for number in (1, 2):
            path = scored.write_scored(tmp_path / name / f"round-{number}", seed=seed, settings=(f"seed={seed}",)).path
            info = read_json(path / "run.json")
            write_json(path / "run.json", {**info, "command": "pseudo-label", "round": number, "round_0": start})
            specs.append(str(path))
    found = [runs for _, runs in groups(specs)]
    assert found == [["a/round-1", "b/round-1"], ["a/round-2", "b/round-2"], ["c/round-1"], ["c/round-2"]]
    assert groups([specs[0], specs[3]]) is None


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (("seed-0/plain", "seed-1/plain"), "plain"),
        (("plain-0", "plain-1"), "plain"),
        (("x10-seed0", "x10-seed1"), "x10"),
        (("seed-0", "seed-1"), "seed-0 and 1 more"),
        (("first", "second"), "first and 1 more"),
    ],
)
def test_groups_are_named_by_what_their_runs_share(tmp_path, names, group):
    assert groups([write(tmp_path, name, 1, seed) for seed, name in enumerate(names)])[0][0] == group
