"""`pcam-ssl launch --on ray`: units as tasks of a real Ray cluster on this machine."""

import json
import os
import platform
import re
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import pytest

import pcam_ssl as pcam
from pcam_ssl.units import ray_tasks
from pcam_ssl.units.attempts import run_all
from pcam_ssl.units.ray_tasks import RayWorkers, _resources
from pcam_ssl.units.unit import read_units
from pcam_ssl.units.worker import Job


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two CPUs, ended with the tests."""
    ray = pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    # Ray's sockets lie in it, and the path of a socket is at most 107 characters long.
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80_000_000, "_temp_dir": folder}
    try:
        ray.init("local", **here, log_to_driver=False, logging_level="error")
    except RuntimeError:
        # Ray waits a fixed time for its own server; on a busy machine the second start is the quicker one.
        ray.shutdown()
        ray.init("local", **here, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.trains
@pytest.mark.processes
def test_a_lost_worker_costs_its_last_minutes(cluster, command, units, tmp_path, equals_uninterrupted):
    run = tmp_path / "runs" / "smoke"
    killed = []

    def kill():
        while not (run / "fold-0" / "previous.pt").exists():
            time.sleep(0.005)
        unit = json.loads((run / "fold-0" / ".lock.holder.json").read_text())["pid"]
        worker = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{unit}/status").read_text())[1])
        # A machine that is lost takes Ray's worker and the unit's own process with it.
        for pid in (worker, unit):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    threading.Thread(target=kill, daemon=True).start()
    done = command("launch", units, "--on", "ray", "--request", "num_cpus=1")
    assert done.code == 0, done.err
    assert len(killed) == 2 and "its worker is lost; starting it again (1 of 2)" in done.err
    assert f"{run}: finished" in done.out.splitlines()
    equals_uninterrupted(run)
    assert cluster.is_initialized(), "a cluster of somebody else is left running"


@pytest.mark.trains
@pytest.mark.processes
def test_stopped_workers_save_the_state_of_their_units(cluster, slides, long, tmp_path):
    units = tmp_path / "units.jsonl"
    # The worker looks for a stop every half second; a training must last longer than that on any machine.
    pcam.plan("smoke", slides, [*long, "train.epochs=100"], out=tmp_path / "runs", file=units)
    workers = RayWorkers(1, None, {}, None, tmp_path / "logs")
    workers.start([Job(str(units), 0, str(tmp_path / "logs" / "0.log"), str(tmp_path))])
    saved = tmp_path / "runs" / "smoke" / "fold-0" / "last.pt"
    until = time.monotonic() + 120
    while not saved.exists():
        assert time.monotonic() < until and workers.ended() == []
        time.sleep(0.05)
    workers.stop()
    assert "state saved" in (tmp_path / "logs" / "0.log").read_text()
    assert saved.exists() and [path.name for path in (tmp_path / "logs").iterdir()] == ["0.log"]


@pytest.mark.processes
def test_a_folder_that_a_worker_does_not_see_is_named(cluster, units, tmp_path):
    """Not a lost worker: it would be started again and again."""
    workers = RayWorkers(1, None, {}, None, tmp_path / "logs")
    job = Job(str(units), 0, str(tmp_path / "logs" / "0.log"), str(tmp_path / "absent"))
    (failed,) = run_all(workers, {0: read_units(units)[0]}, {0: job}, retries=2).values()
    assert failed.startswith(
        f"unit 0 (fold 0 of {tmp_path}/runs/smoke): {tmp_path}/absent: no such folder on {platform.node()}; launch"
    )


def test_without_ray_its_extra_is_named(command, units, monkeypatch):
    monkeypatch.setattr(ray_tasks, "find_spec", lambda name: None)
    done = command("launch", units, "--on", "ray")
    assert (done.code, done.problems) == (2, ["--on ray: Ray is not installed; pip install 'pcam-ssl[ray]'"])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_does_not_answer_is_told(command, units, address, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(address, **_):
        raise ConnectionError(f"no Ray at {address}")

    monkeypatch.setattr(ray, "init", init)
    done = command("launch", units, "--on", "ray", "--address", address)
    assert (done.code, len(done.problems)) == (2, 1)
    assert done.problems[0].startswith(f"--address {address}: Ray does not answer there (")


def test_a_cluster_that_does_not_start_is_told(command, units, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def init(address, **_):
        raise RuntimeError("Timed out waiting for file gcs_server_port\nmore")

    monkeypatch.setattr(ray, "init", init)
    done = command("launch", units, "--on", "ray")
    assert (done.code, done.problems) == (
        2,
        [
            "--on ray: Ray did not start on this machine (Timed out waiting for file gcs_server_port); run the same command again, or use"
            " --on local"
        ],
    )


def test_a_unit_asks_for_a_gpu_where_the_cluster_has_one():
    assert _resources({}, {"CPU": 8}) == {}
    assert _resources({}, {"CPU": 8, "GPU": 2}) == {"num_gpus": 1}
    assert _resources({"num_gpus": 0, "num_cpus": 4}, {"CPU": 8, "GPU": 2}) == {"num_gpus": 0, "num_cpus": 4}
    assert _resources({"fast": 1}, {"CPU": 8, "fast": 2}) == {"resources": {"fast": 1}}


def test_what_the_cluster_lacks_is_said(capsys):
    assert _resources({"num_cpus": 16}, {"CPU": 8}) == {"num_cpus": 16}
    assert "the cluster lacks CPU 16 (it has 8)" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["one", "true", ".inf", ".nan", "-1"])
def test_a_request_that_is_no_number_is_refused_before_ray_starts(command, units, monkeypatch, value):
    pytest.importorskip("ray", reason="ray is not installed (extra: ray)")
    monkeypatch.setattr(ray_tasks, "_connect", lambda *_: pytest.fail("Ray was started"))
    done = command("launch", units, "--on", "ray", "--request", f"num_gpus={value}")
    assert (done.code, len(done.problems)) == (2, 1)
    assert done.problems[0].startswith("--request num_gpus=") and "Ray takes numbers" in done.problems[0]
