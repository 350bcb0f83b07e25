"""Checkpoints of a training, and stopping it. On Ctrl-C or SIGTERM the step is finished, the state is saved, and a message says how to continue.

Checkpoints are written atomically, the previous one is kept, and loading runs no code from the file.
"""

import os
import pickle
import signal
import threading
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write
from pcam_ssl.terminal import warn

LAST, PREVIOUS = "last.pt", "previous.pt"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `last.pt`; the earlier one becomes `previous.pt`. A kill between the two renames leaves `previous.pt`."""
    with atomic_write(folder / LAST) as temporary:
        try:
            # A file object, because torch's own writer hides the reason of a failed write.
            with open(temporary, "wb") as handle:
                torch.save(state, handle)
        except RuntimeError as error:
            # When torch closes its archive after an OSError, it raises another error on top.
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable state, or None. Where `last.pt` is damaged, a warning says so and `previous.pt` is loaded."""
    paths = [path for name in (LAST, PREVIOUS) if (path := folder / name).exists()]
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:
                # torch does not verify the checksums that it wrote.
                if (broken := archive.testzip()) is not None:
                    raise zipfile.BadZipFile(f"checksum of {broken}")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not isinstance(state.get("step"), int):
                raise zipfile.BadZipFile("it holds something else")
            return state
        except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
            reason = first_line(error)[:80]
            fallback = "training starts again" if path == paths[-1] else "going on from the checkpoint before it"
            warn(f"{path}: damaged ({reason}); {fallback}")
    return None


def remove_checkpoints(folder: Path) -> None:
    """Delete the training state of a finished fold."""
    for name in (LAST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


class Stopped(UserError):
    """Training was stopped by a signal and has saved its state."""

    exit_code = 130


@contextmanager
def interruptible(what: str):
    """Turn Ctrl-C outside of training into Stopped, with one line that says how to continue `what`, instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"{what}: stopped; what is finished is kept, and the same command goes on from there") from None


class StopRequest:
    """A signal handler; `came` is True once a signal has arrived."""

    def __init__(self):
        self.came = False

    def __call__(self, *_):
        self.came = True


@contextmanager
def stop_requests():
    """Record SIGINT and SIGTERM instead of dying in the middle of a step; yields a StopRequest."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
