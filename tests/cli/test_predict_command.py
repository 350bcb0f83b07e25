import json

import pytest

from pcam_ssl.tables import read_table


def test_patches_without_labels_are_predicted_and_counted(command, finished, slides, tmp_path):
    done = command("predict", finished.path, slides, "--split", "test", "--out", tmp_path / "new.parquet", "--device", "cpu")
    assert done.code == 0
    assert done.out == f"{tmp_path}/new.parquet: 16 patches; one row per id and fold, fold -1 is the mean\n"
    assert len(read_table(tmp_path / "new.parquet")[0]) == 48


def test_labels_are_scored(command, finished, slides, tmp_path):
    done = command("predict", finished.path, slides, "--split", "valid", "--out", tmp_path / "new.parquet", "--device", "cpu")
    assert done.code == 0
    assert "AUROC" in done.out


def test_json_holds_the_scores(command, finished, slides, tmp_path):
    words = ["--split", "valid", "--out", tmp_path / "new.parquet", "--device", "cpu", "--json"]
    printed = json.loads(command("predict", finished.path, slides, *words).out)
    assert (printed["out"], printed["n"]) == (str(tmp_path / "new.parquet"), 16)
    assert {"value", "low", "high"} <= set(printed["scores"]["scores"]["nll"])


@pytest.mark.parametrize(
    ("run", "words", "problem"),
    [
        ("nowhere", ["--out", "new.parquet"], "nowhere: no run there; `pcam-ssl baseline --out nowhere` makes one"),
        (None, ["--out", "new.csv"], "--out new.csv: is written as parquet; name it new.parquet"),
        (None, ["--out", "."], "--out .: is a folder; name a file in it"),
        (None, ["--out", "new.parquet", "--device", "gpu"], "--device gpu: choose auto, cpu, cuda or mps"),
        (None, ["--out", "new.parquet", "--split", "holdout"], "no patches in split holdout; it has test, train, valid"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(command, finished, slides, tmp_path, monkeypatch, run, words, problem):
    monkeypatch.chdir(tmp_path)
    done = command("predict", run or finished.path, slides, *words)
    assert done.code == 2
    assert len(done.problems) == 1
    assert problem in done.problems[0]
    assert list(tmp_path.iterdir()) == []


def test_a_source_of_another_kind_is_one_line(command, finished, tmp_path):
    (tmp_path / "notes.txt").write_text("no patches here")
    done = command("predict", finished.path, tmp_path / "notes.txt", "--out", tmp_path / "new.parquet")
    assert done.code == 2
    assert "notes.txt" in done.problems[0]
    assert not (tmp_path / "new.parquet").exists()


def test_a_table_of_a_run_names_the_blend_that_makes_it_a_run(command, finished, slides, tmp_path):
    done = command("predict", f"{finished.path}:graph", slides, "--out", tmp_path / "new.parquet")
    spec, made = f"{finished.path}:graph", f"{finished.path}-graph"
    assert done.code == 2
    assert done.problems == [f"{spec}: predict takes a folder; `pcam-ssl blend {spec} --out {made}` makes {made} of it"]
