"""`pcam-ssl launch --on slurm`: the script that is submitted, and units run by submitit on this machine in place of SLURM."""

import json
import os
import signal
import stat
import threading
import time

import pytest

from pcam_ssl.units import launch as module
from pcam_ssl.units import slurm
from pcam_ssl.units.slurm import SlurmUnit, SlurmWorkers, slurm_executor
from pcam_ssl.units.worker import Job

SBATCH = """#!/bin/sh
cp "$1" {folder}/script.sh
echo Submitted batch job 4711
"""


@pytest.fixture
def submitit():
    return pytest.importorskip("submitit", reason="submitit is not installed (extra: slurm)")


@pytest.fixture
def fake_slurm(submitit, tmp_path, monkeypatch):
    """A folder with an `sbatch` that keeps the script as script.sh there, and an `srun` that does nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=folder)), ("srun", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def job(units, tmp_path, number=0) -> Job:
    return Job(str(units), number, str(tmp_path / "logs" / f"{number}.log"), str(tmp_path))


@pytest.mark.processes
def test_the_units_are_submitted_as_one_array(fake_slurm, units, tmp_path):
    requests = {"partition": "gpu", "gpus_per_node": 1, "time": 90}
    workers = SlurmWorkers(2, slurm_executor(tmp_path / "slurm", 1, requests))
    workers.start([job(units, tmp_path, number) for number in (0, 1)])
    script = (fake_slurm / "script.sh").read_text().splitlines()
    wanted = {"array=0-1%1", "gpus-per-node=1", "job-name=pcam-ssl", "partition=gpu", "time=90", "signal=USR2@90"}
    assert {f"#SBATCH --{each}" for each in wanted} <= set(script)
    (line,) = [line for line in script if line.startswith("srun ")]
    assert f"-m submitit.core._submit {tmp_path / 'slurm'}" in line


def test_a_request_that_slurm_does_not_know_is_refused(fake_slurm, command, units):
    done = command("launch", units, "--on", "slurm", "--request", "partitoin=gpu")
    assert (done.code, len(done.problems)) == (2, 1)
    assert done.problems[0].startswith("--request: Unavailable parameter(s): ['partitoin']; write a parameter of submitit")


@pytest.mark.processes
def test_jobs_that_slurm_refuses_are_told_in_one_line(fake_slurm, command, units):
    (fake_slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gppu' >&2\nexit 1\n")
    done = command("launch", units, "--on", "slurm", "--request", "partition=gppu")
    said = "--on slurm: sbatch refuses the jobs (sbatch: error: invalid partition specified: gppu); mend what is asked for with --request"
    assert (done.code, done.problems) == (2, [said])


def test_without_submitit_its_extra_is_named(command, units, monkeypatch):
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    done = command("launch", units, "--on", "slurm")
    assert (done.code, done.problems) == (2, ["--on slurm: submitit is not installed; pip install 'pcam-ssl[slurm]'"])


def test_a_machine_without_slurm_is_told(submitit, command, units, monkeypatch):
    monkeypatch.setenv("PATH", "")
    done = command("launch", units, "--on", "slurm")
    assert (done.code, done.problems) == (2, ["--on slurm: there is no sbatch on this machine; launch where sbatch and srun are"])


@pytest.mark.trains
@pytest.mark.processes
def test_jobs_of_submitit_run_the_units(submitit, command, units, tmp_path, equals_uninterrupted, monkeypatch):
    def executor(folder, workers, requests):
        local = submitit.LocalExecutor(folder)
        local.update_parameters(timeout_min=10)
        return local

    monkeypatch.setattr(module, "slurm_executor", executor)
    done = command("launch", units, "--on", "slurm")
    assert done.code == 0, done.err
    equals_uninterrupted(tmp_path / "runs" / "smoke")


@pytest.mark.trains
@pytest.mark.processes
def test_a_unit_whose_time_is_up_saves_its_state_and_is_queued_again(submitit, units, tmp_path):
    unit, queued = SlurmUnit(job(units, tmp_path)), []
    folder = tmp_path / "runs" / "smoke" / "fold-0"
    before = signal.signal(signal.SIGUSR2, lambda *_: queued.append(unit.checkpoint()))

    def warn():
        while not (folder / "last.pt").exists():
            time.sleep(0.005)
        # As SLURM does: to the job and to the processes that it has started.
        for pid in (json.loads((folder / ".lock.holder.json").read_text())["pid"], os.getpid()):
            os.kill(pid, signal.SIGUSR2)

    threading.Thread(target=warn, daemon=True).start()
    try:
        assert unit() == 130
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert "state saved" in (tmp_path / "logs" / "0.log").read_text()
    (again,) = queued
    assert again.function.job == unit.job
    assert again.function() == 0 and (folder / "fold.json").exists()


def test_a_folder_that_a_job_does_not_see_is_its_outcome(submitit, units, tmp_path):
    absent = Job(str(units), 0, str(tmp_path / "logs" / "0.log"), str(tmp_path / "absent"))
    assert SlurmUnit(absent)().startswith(f"{tmp_path}/absent: no such folder on ")
    assert not (tmp_path / "logs").exists()
