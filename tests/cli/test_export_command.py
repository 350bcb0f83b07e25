import json
import re
import shutil
import subprocess

import pyarrow.parquet as pq
import pytest
from json_files import blend_info

from pcam_ssl.export import atlas
from pcam_ssl.files import write_json


@pytest.fixture
def viewer(monkeypatch):
    """The viewer's command lines, instead of the viewer."""
    started = []
    monkeypatch.setattr(atlas, "find_spec", lambda name: name)
    monkeypatch.setattr(atlas, "run", lambda words: started.append(words) or subprocess.CompletedProcess(words, 0))
    return started


def test_each_command_says_what_it_wrote(command, finished, tmp_path, monkeypatch, viewer):
    (tmp_path / "runs").mkdir()
    shutil.copytree(finished.path, tmp_path / "runs" / "baseline")
    monkeypatch.chdir(tmp_path)
    told = []
    for words in (
        ["export", "runs/baseline", "--onnx", "network.onnx"],
        ["export", "runs/baseline", "--onnx", "folds.onnx", "--all-folds", "--d4"],
        ["export", "runs/baseline", "--parquet", "test.parquet", "--split", "test"],
        ["explore", "runs/baseline", "--sample", "5000"],
        ["explore", "runs/baseline", "--split", "test", "--out", "test-map.parquet", "--serve"],
    ):
        done = command(*words)
        assert (done.code, done.problems) == (0, []), words
        told.append(done.out)
    assert re.fullmatch(r"network.onnx: fold-0, .* on 32 patches of .*: largest difference \d\.\de-\d\d, allowed 1e-04\n", told[0])
    assert told[1].startswith("folds.onnx: the mean of 2 folds, logit, prob of uint8 [batch, 32, 32, 3]; ")
    assert told[2] == "test.parquet: 16 embeddings of 96 values by fold-0\n"
    assert "next: embedding-atlas runs/baseline/explore.parquet --x x" in told[3]
    assert [words[3] for words in viewer] == ["test-map.parquet"]


def test_json_says_what_was_written(command, finished, tmp_path):
    done = command("export", finished.path, "--parquet", tmp_path / "e.parquet", "--split", "valid", "--fold", 1, "--json")
    assert json.loads(done.out) == {
        "parquet": {"file": str(tmp_path / "e.parquet"), "n": 16, "dimension": 96, "unit": "fold-1"},
    }


def test_explore_prints_json(command, finished, tmp_path):
    done = command("explore", finished.path, "--out", tmp_path / "e.parquet", "--split", "test", "--fold", 0, "--json")
    assert json.loads(done.out) == {"file": str(tmp_path / "e.parquet"), "n": 16, "unit": "fold-0", "map": "pca", "neighbours": 10}


def test_without_the_viewer_the_table_is_written_and_the_mend_told(command, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(atlas, "PACKAGE", "no_such_viewer")
    done = command("explore", finished.path, "--out", tmp_path / "e.parquet", "--split", "test", "--serve")
    assert done.code == 2 and "pip install 'pcam-ssl[explore]'" in done.problems[-1]
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 16


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export"], "export: say what to write with --onnx FILE.onnx or --parquet FILE.parquet, or both"),
        (["export", "--parquet", "e.parquet", "--d4"], "--all-folds and --d4: only with --onnx"),
        (["export", "--onnx", "n.onnx", "--split", "test"], "--split and --device: only with --parquet"),
        (["export", "--onnx", "n.onnx", "--all-folds", "--fold", "0"], "--all-folds: goes with neither --fold nor --parquet"),
        (["export", "--parquet", "e.parquet", "--device", "tpu"], "--device tpu: choose auto, cpu, cuda or mps"),
        (["export", "--onnx", "n.pt"], "--onnx n.pt: is written as onnx; name it n.onnx"),
        (["export", "--parquet", "e.csv"], "--parquet e.csv: is written as parquet; name it e.parquet"),
        (["export", "--parquet", "."], "--parquet .: is a folder; name a file in it"),
        (["export", "--onnx", "taken/n.onnx"], "--onnx taken/n.onnx: "),
        (["export", "--parquet", "e.parquet", "--split", "holdout"], "no patches in split holdout"),
        (["explore", "--map", "tsne"], "--map tsne: choose pca or umap"),
        (["explore", "--out", "e.csv"], "--out e.csv: is written as parquet; name it e.parquet"),
        (["explore", "--out", "e.parquet", "--fold", "9"], "--fold 9: "),
        (["explore", "--out", "e.parquet", "--round", "1"], "--round 1: "),
    ],
)
def test_bad_options_are_told_in_one_line_and_write_nothing(command, finished, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    done = command(words[0], finished.path, *words[1:])
    assert (done.code, done.out, len(done.problems)) == (2, "", 1) and told in done.problems[0]
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("words", [["export", "--parquet", "e.parquet"], ["export", "--onnx", "n.onnx"], ["explore"]])
def test_a_blend_has_no_network_of_its_own(command, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "blend" / "run.json", blend_info("runs/a"))
    done = command(words[0], "blend", *words[1:])
    assert done.code == 2 and "a blend has no network" in done.problems[0]
    assert [path.name for path in (tmp_path / "blend").iterdir()] == ["run.json"] and not (tmp_path / "n.onnx").exists()
