"""A unit in a process of its own, with a log. Every kind of worker starts units so: one that is killed takes nothing with it."""

import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pcam_ssl.errors import UserError

Outcome = int | str | None
"""How a unit ended on a worker: its exit code, in words why the worker could not start it, or None where the worker is lost."""
GRACE_S = 60.0
"""Time for a process that is told to stop to finish its step and save its state."""


@dataclass(frozen=True)
class Job:
    """A unit to be run: everything that a worker on another machine needs. Paths are absolute."""

    units: str
    number: int
    log: str
    folder: str
    """The current folder of the process: recipes may name files relative to it."""
    data: str | None = None

    @property
    def command(self) -> list[str]:
        data = [] if self.data is None else ["--data", self.data]
        return [sys.executable, "-m", "pcam_ssl", "run-unit", self.units, str(self.number), *data]

    def start(self, env: dict[str, str] | None = None, ignored: signal.Signals | None = None) -> subprocess.Popen:
        """Begin the process, with what it prints appended to the log. It does not get the Ctrl-C of a terminal, nor the signal `ignored`.

        Raises UserError where the folder is not there.
        """
        if not os.path.isdir(self.folder):
            raise UserError(f"{self.folder}: no such folder on {platform.node()}; launch from a folder that all workers see")
        path = Path(self.log)
        path.parent.mkdir(parents=True, exist_ok=True)
        ignore = None if ignored is None else lambda: signal.signal(ignored, signal.SIG_IGN)
        begun = f"== unit {self.number}, {time.strftime('%Y-%m-%d %H:%M:%S')}, on {platform.node()}\n"
        with open(path, "ab", buffering=0) as log:
            try:
                log.write(begun.encode())
            except OSError as error:
                # An error from writing to an open file names no file.
                error.filename = self.log
                raise
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=ignore,
            )

    @property
    def reason(self) -> str:
        """What its log says last: its one line of error, or the last line of a traceback."""
        try:
            text = Path(self.log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "it wrote no log"
        lines = [line.strip() for line in text.rpartition("== unit ")[2].splitlines()[1:] if line.strip()]
        told = [line.removeprefix("pcam-ssl: ") for line in lines if line.startswith("pcam-ssl: ")]
        return [*lines, *told][-1] if lines else "it printed nothing"


def stop(processes: list[subprocess.Popen]) -> None:
    """End processes: each is asked first, and saves its state. What still runs after 60 s, or at another interrupt, is killed."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + GRACE_S
    try:
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def short(path: str) -> str:
    """A path as one types it in the current folder."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
