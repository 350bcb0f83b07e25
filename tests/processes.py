"""Real processes for tests: forked from one that has imported torch and timm, which takes longer than a tiny training."""

import multiprocessing
import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path


def server():
    """A multiprocessing context whose processes start in a tenth of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcam_ssl.pseudo_labels.rounds", "pcam_ssl.cross_validation.predict"])
    return context


@dataclass
class Finished:
    """Exit code and texts of a command that ended."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines of `pcam-ssl: ...` on stderr."""
        return [line.removeprefix("pcam-ssl: ") for line in self.err.splitlines() if line.startswith("pcam-ssl: ")]


class Started:
    """A `pcam-ssl` command in a process of its own, which calls `before` first: a function of a module."""

    def __init__(self, argv, folder: Path, env: dict[str, str], before=None):
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        arguments = ([str(word) for word in argv], str(self.out), str(self.err), env, before)
        self.process = server().Process(target=_run_command, args=arguments)
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended already."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 120) -> Finished:
        """Its end; a command that hangs is killed and fails the test."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {timeout_s} s; stderr: {self.err.read_text()}")
        return Finished(self.process.exitcode, self.out.read_text(), self.err.read_text())


def wait_until(true, process: Started, timeout_s: float = 120) -> None:
    """Wait until `true()`, or the process ends."""
    end = time.monotonic() + timeout_s
    while process.process.is_alive() and not true():
        assert time.monotonic() < end, f"nothing came in {timeout_s} s"
        time.sleep(0.005)


def wait_for(path: Path, process: Started) -> None:
    """Wait until `path` is there; fail where the process ends first."""
    wait_until(path.exists, process)
    assert path.exists(), process.err.read_text()


def ranks(size: int) -> list[dict[str, str]]:
    """The environments that `torchrun --nproc-per-node SIZE` would give its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


def in_every_rank(size: int, work, *arguments) -> list:
    """What `work(world, *arguments)` returns in each process of a world of `size`, in rank order."""
    context = server()
    pipes = [context.Pipe(duplex=False) for _ in range(size)]
    processes = [
        context.Process(target=_run_rank, args=(environment, sender, work, arguments))
        for environment, (_, sender) in zip(ranks(size), pipes, strict=True)
    ]
    for process, (_, sender) in zip(processes, pipes, strict=True):
        process.start()
        sender.close()  # so that a process that dies is heard here
    try:
        for receiver, _ in pipes:
            assert receiver.poll(120), "a process did not answer in 120 s"
        answers = [receiver.recv() for receiver, _ in pipes]
        assert [trouble for _, trouble in answers if trouble] == []
        return [value for value, _ in answers]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _run_command(argv: list[str], out: str, err: str, env: dict[str, str], before) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.environ.update(env)
    sys.argv = ["pcam-ssl", *argv]
    if before is not None:
        before()
    from pcam_ssl.cli import main

    main()


def _run_rank(environment: dict[str, str], sender, work, arguments) -> None:
    os.environ.update(environment)
    import torch

    from pcam_ssl.distributed import join_world

    torch.set_num_threads(1)
    try:
        sender.send((work(join_world("cpu"), *arguments), None))
    except Exception:
        sender.send((None, traceback.format_exc()))
