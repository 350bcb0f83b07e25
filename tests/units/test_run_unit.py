"""`pcam-ssl run-unit`: finished units return, killed ones continue to the same bits, taken ones are left alone, wrong ones are refused."""

import json
import os
import shutil
import signal

import pytest
from processes import wait_for

import pcam_ssl as pcam
from pcam_ssl.cross_validation import cross_validate
from pcam_ssl.errors import Held
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.units.run_unit import Taken, run_unit


@pytest.fixture
def unit_lines(units):
    """The lines of the file, to be changed."""
    return [json.loads(line) for line in units.read_text().splitlines()]


@pytest.fixture
def refused(command, units):
    """refused(N, ...): the one line with which `run-unit` refuses."""

    def refused(number=0, *words) -> str:
        done = command("run-unit", units, number, *words)
        assert (done.code, done.out) == (2, ""), done
        (line,) = done.problems
        return line

    return refused


@pytest.fixture
def as_planned(units, uninterrupted, tmp_path):
    """The finished run, at the place that the plan gives it."""
    return shutil.copytree(uninterrupted.path, tmp_path / "runs" / "smoke")


@pytest.mark.trains
def test_a_finished_unit_returns_at_once_and_writes_nothing(command, units, as_planned, monkeypatch):
    monkeypatch.setattr(cross_validate, "cross_validate", lambda *_: pytest.fail("trained again"))
    before = {path: path.stat().st_mtime_ns for path in as_planned.rglob("*")}
    done = command("run-unit", units, 1)
    assert done.code == 0 and "finished already" in done.err
    assert {path: path.stat().st_mtime_ns for path in as_planned.rglob("*")} == before


@pytest.mark.trains
def test_a_run_whose_combining_was_killed_is_combined_by_the_unit(command, units, as_planned, equals_uninterrupted):
    for name in ("scores.json", "oof.parquet", "test.parquet", "report.html"):
        (as_planned / name).unlink()
    pcam.Run(as_planned).update(status="begun")
    assert command("run-unit", units, 0).code == 0
    equals_uninterrupted(as_planned)
    assert (as_planned / "report.html").exists()


@pytest.mark.trains
@pytest.mark.processes
def test_killed_units_continue_and_the_last_one_combines(start, units, tmp_path, equals_uninterrupted):
    run = tmp_path / "runs" / "smoke"
    for fold in (1, 0):
        worker = start("run-unit", units, fold)
        wait_for(run / f"fold-{fold}" / "last.pt", worker)
        worker.signal(signal.SIGKILL)
        worker.process.join()
        assert not (run / f"fold-{fold}" / "fold.json").exists()
        assert start("run-unit", units, fold).wait().code == 0
        assert (run / "scores.json").exists() == (fold == 0)
    equals_uninterrupted(run)


@pytest.mark.trains
@pytest.mark.processes
def test_a_unit_that_another_worker_has_is_left_to_it(start, units, tmp_path, equals_uninterrupted):
    first = start("run-unit", units, 0)
    wait_for(tmp_path / "runs" / "smoke" / "fold-0" / "last.pt", first)
    first.signal(signal.SIGSTOP)
    try:
        second = start("run-unit", units, 0).wait()
    finally:
        first.signal(signal.SIGCONT)
    assert second.code == Taken.exit_code == 75
    (line,) = second.problems
    assert line.startswith("unit 0 (fold 0 of ") and f"is taken (process {first.pid} on " in line
    assert "Traceback" not in second.err
    assert first.wait().code == 0


@pytest.mark.trains
@pytest.mark.processes
def test_last_folds_that_end_together_combine_once(start, units, tmp_path, equals_uninterrupted):
    together = [start("run-unit", units, number) for number in (0, 1)]
    assert [worker.wait().code for worker in together] == [0, 0]
    equals_uninterrupted(tmp_path / "runs" / "smoke")


@pytest.mark.trains
def test_a_trained_unit_leaves_combining_to_the_process_that_has_begun_it(units, as_planned, monkeypatch, capsys):
    (as_planned / "scores.json").unlink()

    def held(*_):
        raise Held("refit of runs/smoke: process 7 on b is writing it; wait for it")

    monkeypatch.setattr(cross_validate, "cross_validate", held)
    run, worked = run_unit(units, 0)
    assert (run.path, worked) == (as_planned, True)
    assert "trained; process 7 on b is writing it" in capsys.readouterr().err


def test_a_held_lock_says_who_has_it(tmp_path):
    with lock_file(tmp_path / ".lock", "the run"), pytest.raises(Held, match=f"process {os.getpid()}"):
        lock_file(tmp_path / ".lock", "the run").__enter__()


@pytest.mark.parametrize("number", [2, 99])
def test_a_unit_that_is_not_there_is_refused(refused, number):
    assert f"has no unit {number}; it holds units 0 to 1, counted from 0" in refused(number)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "", "holds no unit"),
        (lambda text: text[: len(text) // 3], "line 1 is no unit, or cut short"),
        (lambda text: text.splitlines(keepends=True)[0], "holds 1 units of 2: cut short"),
        (lambda text: "".join(text.splitlines(keepends=True)[::-1]), "line 1 holds unit 1, not 0"),
        (lambda text: text + text, "line 3 holds unit 0, not 2"),
        (lambda text: text.replace('"fold": 1', '"fold": 0'), "units 0 and 1 are both fold 0 of "),
        (lambda text: text.replace('"fold"', '"flod"'), "line 1 is no unit, or cut short (fold is absent)"),
        (lambda text: '{"id": 3}\n', "line 1 is no unit, or cut short (unit is absent)"),
        (lambda text: "[[[", "line 1 is no unit, or cut short"),
    ],
)
def test_what_is_no_file_of_units_is_refused(refused, units, change, said):
    units.write_text(change(units.read_text()))
    line = refused()
    assert line.startswith(f"{units}: ") and said in line


def test_a_file_that_is_not_there_and_a_folder_are_refused(refused, units, tmp_path):
    units.unlink()
    assert refused().startswith(f"{units}: no such file; `pcam-ssl plan RECIPE > FILE` makes it again")
    units.mkdir()
    assert refused().startswith(f"{units}: not a file of units")


def test_a_dataset_that_is_not_on_this_machine_is_refused(refused, units, unit_lines):
    units.write_text("".join(json.dumps({**line, "dataset": "/nowhere/pcam"}) + "\n" for line in unit_lines))
    line = refused()
    assert line.startswith(f"{units}: the dataset /nowhere/pcam is not on this machine (")
    assert line.endswith("say where it is with --data DATASET")


def test_another_dataset_is_refused(refused, slides, rewrite, tmp_path):
    other = rewrite(slides, tmp_path / "other", lambda patches: patches.iloc[:-1])
    line = refused(0, "--data", other)
    assert "made from another dataset (digest " in line and str(other) in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.trains
def test_a_run_of_another_recipe_is_refused(refused, units, unit_lines, as_planned):
    for line in unit_lines:
        line["recipe"]["optim"]["lr"] = 0.01
    units.write_text("".join(json.dumps(line) + "\n" for line in unit_lines))
    assert "begun with another recipe (optim.lr: 0.003 -> 0.01); plan into another --out" in refused()


def test_a_key_of_another_version_is_refused(refused, units, unit_lines):
    unit_lines[0]["recipe"]["train"]["warp"] = 9
    units.write_text("".join(json.dumps(line) + "\n" for line in unit_lines))
    assert "unknown key train.warp" in refused()
