"""`pcam-ssl launch`: units on two workers of this machine; killed, refused, taken and interrupted ones."""

import json
import os
import signal
import threading
import time

import pytest
from processes import wait_for

import pcam_ssl as pcam
from pcam_ssl.units import attempts
from pcam_ssl.units import launch as module
from pcam_ssl.units.attempts import run_all
from pcam_ssl.units.launch import launch_units
from pcam_ssl.units.local import shares
from pcam_ssl.units.unit import read_units
from pcam_ssl.units.worker import Job


@pytest.fixture
def kill_once(tmp_path):
    """kill_once(fold): kill, with SIGKILL, the process that trains a fold once it has a checkpoint; its id is in the list that is returned."""

    def kill_once(fold: int) -> list[int]:
        folder, killed = tmp_path / "runs" / "smoke" / f"fold-{fold}", []

        def kill():
            while not (folder / "previous.pt").exists():
                time.sleep(0.005)
            killed.append(json.loads((folder / ".lock.holder.json").read_text())["pid"])
            os.kill(killed[0], signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        return killed

    return kill_once


@pytest.mark.trains
@pytest.mark.processes
def test_a_killed_worker_costs_its_last_minutes(command, units, kill_once, tmp_path, equals_uninterrupted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    killed = kill_once(1)
    done = command("launch", "units.jsonl", "--workers", 2)
    assert done.code == 0, done.err
    assert done.out.splitlines() == ["runs/smoke: finished", "next: pcam-ssl report runs/smoke"]
    assert "killed by SIGKILL; starting it again (1 of 2)" in done.err and len(killed) == 1
    assert (tmp_path / "units.logs" / "unit-0001.log").read_text().count("== unit 1, ") == 2
    equals_uninterrupted(tmp_path / "runs" / "smoke")


@pytest.mark.processes
def test_a_unit_that_fails_is_told_with_its_log(command, slides, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = [setting for setting in tiny() if not setting.startswith("model.name")]
    pcam.plan("smoke", slides, [*settings, "model.name=nosuch"], folds=[0], out="runs", file="units.jsonl")
    done = command("launch", "units.jsonl")
    assert done.code == 1
    assert done.out == "runs/smoke: folds are missing\n"
    (line,) = done.problems
    assert line.startswith(f"unit 0 (fold 0 of {tmp_path}/runs/smoke): refused (model.name: timm has no backbone nosuch")
    assert line.endswith("; its log is units.logs/unit-0000.log")
    assert "model.name: timm has no backbone nosuch" in (tmp_path / "units.logs" / "unit-0000.log").read_text()


@pytest.mark.trains
@pytest.mark.processes
def test_an_interrupt_ends_the_workers_and_the_same_command_goes_on(start, units, tmp_path, equals_uninterrupted):
    run = tmp_path / "runs" / "smoke"
    launched = start("launch", units, "--workers", 1)
    wait_for(run / "fold-0" / "previous.pt", launched)
    worker = json.loads((run / "fold-0" / ".lock.holder.json").read_text())["pid"]
    launched.signal(signal.SIGINT)
    done = launched.wait()
    assert (done.code, done.problems) == (
        130,
        [f"{units}: stopped; what is finished is kept, and the same command goes on from there"],
    )
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert "state saved" in (tmp_path / "units.logs" / "unit-0000.log").read_text()
    assert start("launch", units, "--workers", 2).wait().code == 0
    equals_uninterrupted(run)


class Scripted:
    """Workers whose units end with the exit codes of a script, in order; None is a lost worker."""

    size = 2

    def __init__(self, **codes):
        self.codes = {int(name[1:]): list(each) for name, each in codes.items()}
        self.running: list[int] = []
        self.most = 0

    def start(self, jobs):
        self.running += [job.number for job in jobs]
        self.most = max(self.most, len(self.running))

    def ended(self):
        ended, self.running = self.running, []
        return [(number, self.codes[number].pop(0)) for number in ended]


@pytest.fixture
def run_script(units, tmp_path, monkeypatch):
    """run_script(retries, u0=[codes], u1=[codes], ...): the failures of `run_all`, and the workers."""
    monkeypatch.setattr(attempts, "POLL_S", 0.0)
    monkeypatch.setattr(attempts, "TAKEN_S", 0.0)
    unit = read_units(units)[0]

    def run_script(retries, **codes):
        workers = Scripted(**codes)
        jobs = {number: Job(str(units), number, str(tmp_path / "none.log"), str(tmp_path)) for number in workers.codes}
        return run_all(workers, dict.fromkeys(jobs, unit), jobs, retries), workers

    return run_script


def test_no_more_units_run_than_there_are_workers(run_script):
    failed, workers = run_script(0, u0=[0], u1=[0], u2=[0])
    assert (failed, workers.most) == ({}, 2)


@pytest.mark.parametrize("code", [-9, -40, 1, 130, None])
def test_what_may_go_well_again_is_tried_as_often_as_is_said(run_script, code):
    assert run_script(2, u0=[code, code, 0])[0] == {}
    failed, workers = run_script(2, u0=[code, code, code, 0])
    assert list(failed) == [0] and workers.codes[0] == [0]
    assert failed[0].endswith("/none.log")


@pytest.mark.parametrize("code", [2, 3])
def test_what_is_refused_is_not_tried_again(run_script, code):
    failed, workers = run_script(2, u0=[code, 0])
    assert list(failed) == [0] and workers.codes[0] == [0]


def test_a_unit_that_somebody_else_trains_is_waited_for(run_script):
    assert run_script(0, u0=[75, 75, 75, 0])[0] == {}


def test_a_taken_unit_is_asked_for_less_and_less_often(run_script, monkeypatch):
    monkeypatch.setattr(attempts, "TAKEN_S", 10.0)
    waits = []

    def put_back(self, number, after_s=0.0):
        waits.append(after_s)
        self.waiting.append(number)

    monkeypatch.setattr(attempts._Queue, "put_back", put_back)
    assert run_script(0, u0=[75] * 7 + [0])[0] == {}
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_each_worker_has_its_device_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert shares(2, {}, 0) == [{"OMP_NUM_THREADS": "4"}] * 2
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(3, {}, 2)] == ["0", "1", "0"]
    assert shares(2, {"CUDA_VISIBLE_DEVICES": "4, 6", "OMP_NUM_THREADS": "1"}) == [
        {"CUDA_VISIBLE_DEVICES": "4"},
        {"CUDA_VISIBLE_DEVICES": "6"},
    ]
    assert shares(1, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}) == [{}]


@pytest.mark.parametrize(("asked", "most"), [(10**9, 2), (None, 2), (1, 1)])
def test_there_are_no_more_workers_than_units(tmp_path, asked, most):
    assert module._open("local", 2, asked, {}, None, tmp_path).size == most


def test_a_log_that_finds_no_room_is_named(units, tmp_path):
    with pytest.raises(OSError, match="No space left on device") as raised:
        Job(str(units), 0, "/dev/full", str(tmp_path)).start()
    assert raised.value.filename == "/dev/full"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "sge"], "--on sge: choose local, slurm, ray"),
        (["--workers", 0], "--workers 0: at least one is needed"),
        (["--request", "partition=gpu"], "--request partition=gpu: is for slurm and ray"),
        (["--on", "slurm", "--request", "partition"], "--request partition: write KEY=VALUE"),
        (["--on", "slurm", "--request", "partition=["], "--request: a value is not readable as YAML"),
        (["--address", "auto"], "--address auto: is for ray"),
    ],
)
def test_options_that_do_not_fit_are_refused(command, units, words, said):
    done = command("launch", units, *words)
    assert (done.code, done.out, len(done.problems)) == (2, "", 1)
    assert done.problems[0].startswith(said)


def test_a_dataset_that_is_gone_is_told_once_before_any_worker_starts(command, units, slides, tmp_path):
    units.write_text(units.read_text().replace(str(slides), "/nowhere/pcam"))
    done = command("launch", units)
    assert (done.code, len(done.problems)) == (2, 1)
    assert "the dataset /nowhere/pcam is not on this machine" in done.problems[0]
    assert not (tmp_path / "units.logs").exists()


@pytest.mark.trains
def test_nothing_is_started_where_all_is_finished(slides, long, uninterrupted, tmp_path, monkeypatch):
    file = tmp_path / "units.jsonl"
    (tmp_path / "smoke").symlink_to(uninterrupted.path)
    pcam.plan("smoke", slides, long, out=tmp_path, file=file)
    monkeypatch.setattr(Job, "start", lambda *_: pytest.fail("a unit was started"))
    assert launch_units(file).finished == (str(tmp_path / "smoke"),)
