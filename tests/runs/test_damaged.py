"""A damaged file of a run, a dataset or embeddings ends every command that reads it in one line that names it."""

import json
import shutil
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from json_files import rounds_info
from rounds_verdicts import control

from pcam_ssl.files import write_json
from pcam_ssl.tables import write_table

JSON = {
    "other bytes": b"\x89PNG\r\n\xff\xfe\x00\x01",
    "object": b"{}",
    "nothing but text": None,
}
"""What stands in a JSON file (tests/test_files.py has more); None: every value becomes a text."""


@pytest.fixture(scope="module")
def whole(finished, slides, tmp_path_factory):
    """Two equal finished runs and a dataset: copied for every case."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(slides, folder / "slides")
    for name in ("run", "other"):
        shutil.copytree(finished.path, folder / name)
        info = json.loads((folder / name / "run.json").read_text())
        (folder / name / "run.json").write_text(json.dumps({**info, "dataset": str(folder / "slides")}))
    return folder


@pytest.fixture
def place(whole, tmp_path, monkeypatch):
    """A copy of `whole`, which is the folder one is in."""
    copy = shutil.copytree(whole, tmp_path / "place")
    for name in ("run", "other"):
        text = (copy / name / "run.json").read_text()
        (copy / name / "run.json").write_text(text.replace(str(whole), str(copy)))
    monkeypatch.chdir(copy)
    return copy


COMMANDS = {
    "predict": ("predict", "run", "slides", "--split", "test", "--out", "new.parquet"),
    "report": ("report", "run"),
    "compare": ("compare", "other", "run"),
    "blend": ("blend", "other", "run", "--out", "blend"),
    "pseudo-label": ("pseudo-label", "run", "--rounds", "1", "--set", "pseudo.planted_share=0"),
    "explain": ("explain", "run", "--whole-fold", "0"),
    "export": ("export", "run", "--parquet", "new.parquet"),
    "explore": ("explore", "run", "--sample", "9"),
    "audit": ("data", "audit", "slides", "--run", "run"),
}
READ = {
    "run.json": tuple(COMMANDS),
    "scores.json": ("report", "compare", "blend"),
    "fold-0/fold.json": ("report", "compare", "blend"),
    "fold-0/model.json": ("predict", "explain", "export", "explore"),
}


def damaged(content: bytes | None, path) -> bytes:
    if content is not None:
        return content
    return json.dumps(dict.fromkeys(json.loads(path.read_text()), "x")).encode()


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in READ.items() for name in names])
def test_a_damaged_json_file_is_named(command, place, file, name, content):
    path = place / "run" / file
    path.write_bytes(damaged(content, path))
    before = sorted(place.rglob("*.parquet"))
    ended = command(*COMMANDS[name])
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    (problem,) = ended.problems
    assert problem.startswith(f"run/{file}: damaged (")
    assert "; delete " in problem
    assert sorted(place.rglob("*.parquet")) == before


TABLES = {
    "oof.parquet": ("report", "compare", "blend", "export", "explore", "audit"),
    "folds.parquet": ("report", "compare", "blend", "explain", "export", "explore", "audit"),
    "fold-0/inner.parquet": ("report", "pseudo-label"),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def other_bytes(path):
    path.write_bytes(b"id,label\n1,0\n")


def other_columns(path):
    write_table(path, pd.DataFrame({"a": [1], "b": ["x"]}))


@pytest.mark.parametrize("damage", [cut, other_columns])
@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in TABLES.items() for name in names])
def test_a_damaged_table_is_named(command, place, file, name, damage):
    damage(place / "run" / file)
    ended = command(*COMMANDS[name])
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    (problem,) = ended.problems
    assert f"run/{file}" in problem


@pytest.mark.parametrize("damage", [cut, other_bytes])
@pytest.mark.parametrize("name", ["predict", "explain", "export", "compare"])
def test_damaged_weights_are_named(command, place, name, damage):
    damage(place / "run" / "fold-0" / "model.safetensors")
    ended = command(*COMMANDS[name])
    assert (ended.code, len(ended.problems), "Traceback" in ended.err) == (2, 1, False), ended.err
    assert "run/fold-0" in ended.problems[0]


@pytest.mark.parametrize("content", [b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"step": "x"}\n', b'{"step": 1\n{"step": 2}\n'])
@pytest.mark.parametrize("name", ["report", "compare"])
def test_a_damaged_history_is_named(command, place, name, content):
    (place / "run" / "fold-1" / "metrics.jsonl").write_bytes(content)
    ended = command(*COMMANDS[name])
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert ended.problems[0].startswith("run/fold-1/metrics.jsonl: damaged (")


@pytest.mark.parametrize("content", JSON.values(), ids=JSON)
def test_a_damaged_verdict_on_rounds_is_named(command, place, content):
    (place / "run" / "rounds.json").write_bytes(content or b'{"best": "x", "rounds": [{}]}')
    for words in (COMMANDS["predict"], COMMANDS["report"]):
        ended = command(*words)
        assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
        assert ended.problems[0].startswith("run/rounds.json: damaged (")
        assert "`pcam-ssl pseudo-label run`" in ended.problems[0]


def test_a_damaged_control_is_named(command, place):
    write_json(place / "run" / "rounds.json", rounds_info(control={**control(), "steps": "many"}))
    ended = command(*COMMANDS["report"])
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert ended.problems[0].startswith("run/rounds.json: damaged (control.steps holds text, not a list); ")


@pytest.mark.parametrize("text", [None, "seed: [", "seed: x", "score: {resamples: many}", "train: {batch_size: x}"])
@pytest.mark.parametrize("name", ["report", "compare", "predict"])
def test_a_damaged_recipe_is_named(command, place, name, text):
    path = place / "run" / "recipe.yaml"
    path.unlink() if text is None else path.write_text(text)
    ended = command(*COMMANDS[name])
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert ended.problems[0].startswith("run/recipe.yaml: ")


def test_a_dataset_that_has_moved_is_asked_for(command, place):
    (place / "slides").rename(place / "moved")
    for words in (COMMANDS["pseudo-label"], COMMANDS["explain"], COMMANDS["export"]):
        (problem,) = command(*words).problems
        assert problem.endswith("is not there any more; say where it is with --data DATASET")


def other_array(path):
    np.save(path, np.zeros(3))


def pickled(path):
    np.save(path, np.array([{}], dtype=object))


@pytest.mark.parametrize(
    ("file", "damage"),
    [("manifest.json", other_bytes), ("patches.parquet", other_columns), ("patches.parquet", cut)]
    + [("pixels.npy", damage) for damage in (cut, other_bytes, other_array, pickled)],
)
@pytest.mark.parametrize("words", [("data", "show", "slides"), COMMANDS["predict"], ("doctor", "--data", "slides")])
def test_a_damaged_dataset_is_named(command, place, monkeypatch, file, damage, words):
    # doctor trains for a second there, whatever the dataset holds.
    doctor = import_module("pcam_ssl.doctor")
    monkeypatch.setattr(doctor, "check_speed", lambda: doctor.Finding("speed", "ok", "not measured"))
    damage(place / "slides" / file)
    ended = command(*words)
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert "slides" in (ended.problems or [ended.out])[0]


def test_scores_that_were_deleted_are_made_again(command, place):
    """The mend that the message names."""
    recipe = place / "run" / "recipe.yaml"
    before = json.loads((place / "run" / "scores.json").read_text())
    (place / "run" / "scores.json").unlink()
    words = ("baseline", "--data", place / "slides", "--recipe", recipe, "--out", "run")
    assert command(*words).code == 0
    assert json.loads((place / "run" / "scores.json").read_text()) == before


@pytest.mark.parametrize("file", ["run.json", "scores.json"])
def test_a_damaged_file_stops_the_run_that_would_be_continued(command, place, file):
    (place / "run" / file).write_text("{}")
    words = ("baseline", "--data", place / "slides", "--recipe", place / "run" / "recipe.yaml", "--out", "run")
    ended = command(*words)
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert f"run/{file}: damaged" in ended.problems[0]
