import json
import shutil

import pytest
from json_files import blend_info

from pcam_ssl.files import write_json
from pcam_ssl.tables import read_table


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    return shutil.copytree(finished.path, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def known_id(run) -> str:
    return read_table(run / "oof.parquet")[0].id[3]


def test_explain_prints_a_block_and_where_the_page_is(command, run, known_id, tmp_path):
    done = command("explain", run, "--id", known_id, "--neighbours", 2, "--out", tmp_path / "out")
    lines = done.out.splitlines()
    assert done.code == 0 and lines[0].startswith(f"patch {known_id}: ")
    assert [line.split()[0] for line in lines[1:6]] == ["network", "call", "centre", "blurred", "agreement"]
    assert lines[-1] == f"page {tmp_path / 'out' / 'explain.html'}" and (tmp_path / "out" / f"{known_id}.png").exists()


def test_explain_prints_json(command, run, known_id, tmp_path):
    done = command("explain", run, "--id", known_id, "--neighbours", 0, "--out", tmp_path, "--json")
    shown = json.loads(done.out)
    assert shown["page"] == str(tmp_path / "explain.html")
    assert shown["patches"][0]["id"] == known_id and 0 <= shown["patches"][0]["prob_without_centre"] <= 1


def test_a_whole_fold_is_a_table_or_json(command, run):
    done = command("explain", run, "--whole-fold", 0)
    assert (done.code, done.out.splitlines()[0][:8]) == (0, "fold 0: ")
    assert json.loads(command("explain", run, "--whole-fold", 0, "--json").out)["right"]["n"] > 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "explain: name patches with --id ID, or a fold with --whole-fold K"),
        (("--id", "a", "--whole-fold", "0"), "explain: name patches with --id ID, or a fold with --whole-fold K"),
        (("--whole-fold", "0", "--fold", "1"), "--whole-fold: takes neither --fold nor --out; "),
        (("--id", "a", "--device", "tpu"), "--device tpu: choose auto, cpu, cuda or mps"),
        (("--id", "no-such-patch"), "--id no-such-patch: "),
        (("--whole-fold", "9"), "--whole-fold 9: "),
    ],
)
def test_bad_options_are_told_in_one_line(command, run, words, told):
    done = command("explain", run, *words)
    assert (done.code, done.out, len(done.problems)) == (2, "", 1) and done.problems[0].startswith(told)


def test_a_blend_names_the_runs_to_explain(command, tmp_path):
    write_json(tmp_path / "run.json", blend_info("runs/a"))
    done = command("explain", tmp_path, "--id", "a")
    assert done.code == 2 and "name one of its runs (runs/a)" in done.problems[0]
