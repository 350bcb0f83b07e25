"""Workers of Ray: a task a unit. Extra: `pcam-ssl[ray]`."""

import math
import os
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.terminal import say, warn
from pcam_ssl.units.worker import GRACE_S, Job, Outcome, stop

POLL_S = 0.5
CONNECT_S = 10.0
STOPPED = 130
OBJECT_STORE_BYTES = 80_000_000
"""The store of a Ray that is started here: tasks return an exit code only."""


class RayWorkers:
    """All units at once as tasks of a Ray cluster, or `size` of them; Ray runs as many as its resources allow."""

    def __init__(self, size: int, workers: int | None, requests: dict[str, Any], address: str | None, folder: Path):
        """Connects to `address`, $RAY_ADDRESS or the Ray of this process; else starts Ray here. `folder` is one that all workers see.

        Raises UserError where Ray is not installed or does not answer, and for requests that are no numbers.
        """
        if find_spec("ray") is None:
            raise UserError("--on ray: Ray is not installed; pip install 'pcam-ssl[ray]'")
        import ray

        # Before Ray starts, which takes seconds.
        _check_numbers(requests)
        self.size = size if workers is None else workers
        self._own = not ray.is_initialized()
        if self._own:
            _connect(address or os.environ.get("RAY_ADDRESS"), workers)
        self._resources = _resources(requests, ray.cluster_resources())
        self._numbers: dict[Any, int] = {}
        self._stop_file = folder / f"stop-{uuid4().hex}"

    def start(self, jobs: list[Job]) -> None:
        """Hand units to Ray."""
        import ray

        # Launching counts the retries, and a unit that was killed is not Ray's to repeat.
        task = ray.remote(max_retries=0, **self._resources)(run_job)
        for job in jobs:
            self._numbers[task.remote(job, str(self._stop_file))] = job.number

    def ended(self) -> list[tuple[int, Outcome]]:
        """The units that ended since the last call, with their exit codes; None where their worker or its machine is lost, and in
        words what kept a worker from starting one."""
        import ray

        tasks = list(self._numbers)
        done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        return [(self._numbers.pop(task), _outcome(task)) for task in done]

    def stop(self) -> None:
        """End all units; each saves its state first. Those that have not begun return at once."""
        import ray

        # Ray takes a cancelled task for ended while its process still saves, and kills it then; a file leaves it the time.
        self._stop_file.parent.mkdir(parents=True, exist_ok=True)
        self._stop_file.touch()
        tasks = list(self._numbers)
        try:
            if tasks:
                _, running = ray.wait(tasks, num_returns=len(tasks), timeout=GRACE_S)
                for task in running:
                    ray.cancel(task, force=True)
        finally:
            self._stop_file.unlink()
        self._numbers.clear()

    def close(self) -> None:
        """Leave the cluster, or end the one that was started here."""
        import ray

        if self._own:
            ray.shutdown()


def run_job(job: Job, stop_file: str) -> int:
    """Run a unit to its end and return its exit code, -N where signal N ended it; 130 where `stop_file` came first. Runs in Ray's worker."""
    if os.path.exists(stop_file):
        return STOPPED
    process = job.start()
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
            if os.path.exists(stop_file):
                stop([process])
        return process.returncode
    except BaseException:
        stop([process])
        raise


def _connect(address: str | None, workers: int | None) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        say("ray: no --address and no $RAY_ADDRESS; starting Ray on this machine")
        here = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            ray.init("local", **here, log_to_driver=False, logging_level="error")
        except (OSError, RuntimeError) as error:
            # Ray gives its own server a fixed time to start, which a busy machine may not keep.
            raise UserError(
                f"--on ray: Ray did not start on this machine ({first_line(error)}); run the same command again, or use --on local"
            ) from None
        return
    try:
        host, _, port = address.rpartition(":")
        if host and port.isdecimal() and "://" not in address:
            # Ray itself tries for minutes.
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--address {address}: Ray does not answer there ({first_line(error)}); `ray start --head` prints the address of a cluster"
        ) from None


def _check_numbers(requests: dict[str, Any]) -> None:
    """Raises UserError for requests that Ray does not take: it takes finite numbers that are not negative."""
    for key, value in requests.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise UserError(f"--request {key}={value}: Ray takes numbers, as num_cpus=4 or num_gpus=1")


def _resources(requests: dict[str, Any], cluster: dict[str, float]) -> dict[str, Any]:
    """What a task asks Ray for: `num_cpus`, `num_gpus` (one where the cluster has any), `memory`, and resources by their own names."""
    named = {key: requests[key] for key in ("num_cpus", "num_gpus", "memory") if key in requests}
    if "num_gpus" not in named and cluster.get("GPU", 0) >= 1:
        named["num_gpus"] = 1
    others = {key: value for key, value in requests.items() if key not in named}
    asked = {**others, **{name: named[key] for key, name in (("num_cpus", "CPU"), ("num_gpus", "GPU")) if key in named}}
    lacking = [f"{name} {value} (it has {cluster.get(name, 0):g})" for name, value in asked.items() if value > cluster.get(name, 0)]
    if lacking:
        warn(f"ray: the cluster lacks {', '.join(lacking)}; units wait until it grows")
    return {**named, **({"resources": others} if others else {})}


def _outcome(task: Any) -> Outcome:
    import ray

    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        # Other errors may pass, such as a file system that does not answer: the unit is tried again.
        return first_line(error.cause) if isinstance(error.cause, UserError) else None
    except ray.exceptions.RayError:
        return None
