"""Workers of this machine: processes, each with its GPU and its share of the cores."""

import os
import subprocess

from pcam_ssl.units.worker import Job, stop


class LocalWorkers:
    """At most `size` units at a time, in processes of this machine."""

    def __init__(self, size: int):
        self.size = size
        self._shares = shares(size)
        self._running: dict[int, tuple[int, subprocess.Popen]] = {}

    def start(self, jobs: list[Job]) -> None:
        """Begin units, no more than there are free places."""
        for job in jobs:
            place = next(place for place in range(self.size) if place not in self._running)
            self._running[place] = (job.number, job.start(self._shares[place]))

    def ended(self) -> list[tuple[int, int | None]]:
        """The units that ended since the last call, with their exit codes."""
        done = [place for place, (_, process) in self._running.items() if process.poll() is not None]
        return [(number, process.returncode) for number, process in map(self._running.pop, done)]

    def stop(self) -> None:
        """End all units; each saves its state first."""
        stop([process for _, process in self._running.values()])
        self._running.clear()

    def close(self) -> None:
        """Nothing is left to be closed."""


def shares(size: int, environ: dict[str, str] | None = None, n_devices: int | None = None) -> list[dict[str, str]]:
    """What each of `size` processes has in its environment beside ours: one of the GPUs in turn, and threads for its share of the cores.

    A number of threads that is set already is kept.
    """
    environ = dict(os.environ) if environ is None else environ
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        devices = [str(number) for number in range(_count_devices() if n_devices is None else n_devices)]
    else:
        devices = [name.strip() for name in named.split(",") if name.strip()]
    threads = {} if "OMP_NUM_THREADS" in environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // size))}
    return [{**threads, **({"CUDA_VISIBLE_DEVICES": devices[n % len(devices)]} if devices else {})} for n in range(size)]


def _count_devices() -> int:
    import torch

    return torch.cuda.device_count()
