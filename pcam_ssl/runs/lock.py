"""The lock of a folder: one process or thread writes it at a time."""

import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcam_ssl.errors import Held, UserError
from pcam_ssl.files import read_json, write_json


@contextmanager
def lock_file(path: Path, what: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; a kill frees it. Raises Held naming the holder while another process or thread has it.

    A folder in which nothing was written meanwhile is removed again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path.parent}: a file has that name; choose another --out") from None
    holder = path.with_suffix(".holder.json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        try:
            owner = read_json(holder, dict)
        except UserError:  # the holder may be writing it just now
            owner = {}
        own = (owner.get("pid"), owner.get("host")) == (os.getpid(), platform.node())
        thread = f", this very process, in its thread {owner.get('thread', '?')}" if own else ""
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')} (since {owner.get('since', '?')}{thread})"
        raise Held(f"{what}: {who} is writing it; wait for it or stop it, or choose another --out") from None
    try:
        write_json(
            holder,
            {
                "pid": os.getpid(),
                "thread": threading.current_thread().name,
                "host": platform.node(),
                "since": time.strftime("%H:%M:%S"),
                "argv": sys.argv,
            },
        )
        yield
    finally:
        holder.unlink(missing_ok=True)
        if list(path.parent.iterdir()) == [path]:
            path.unlink()
            path.parent.rmdir()
        lock.release()
