"""What the processes of one command share: the source, and the folder of what is done so far, which outlives a kill."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.importing import open_source
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_text, read_json, write_json
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.terminal import say
from pcam_ssl.training.checkpoint import Stopped, interruptible

IDENTITY, LOCK = "work.json", ".lock"


@contextmanager
def shared_source(source: Path | str, skip_bad: bool, world: World) -> Iterator[Dataset]:
    """`open_source` for all processes: one imports what is no dataset, all read it. Raises its UserErrors."""
    with ExitStack() as opened:
        path = world.run_on_main(lambda: opened.enter_context(open_source(source, skip_bad)).path)
        yield world.run_on_all(lambda: open_dataset(path))
        # The one that imported it removes it, and others may still read.
        world.gather(None)


@contextmanager
def kept_work(target: Path, what: str, identity: dict[str, Any], world: World) -> Iterator[Path]:
    """Yield the hidden folder beside `target` for what is done of it. It is removed at the end, and kept by a kill, Ctrl-C or a full disk.

    The next command of the same `identity` (JSON values that decide its numbers) gets it again; another one begins anew. `what` names the
    work in messages. Raises Held where another command does this work, and Stopped at Ctrl-C.
    """
    folder = target.with_name(f".{target.name}.part")
    with ExitStack() as lock, interruptible(what):
        world.run_on_main(lambda: _begin(folder, what, digest_text(repr(sorted(identity.items()))), lock))
        try:
            yield folder
            # No process may still read when the folder goes.
            world.gather(None)
        except UserError as error:
            # A command within this one may have been stopped.
            if not isinstance(error, Stopped):
                _empty(folder, world)
            raise
        _empty(folder, world)


def _begin(folder: Path, what: str, identity: str, lock: ExitStack) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock.enter_context(lock_file(folder / LOCK, what))
    if (folder / IDENTITY).exists():
        try:
            same = read_json(folder / IDENTITY, {"identity": str})["identity"] == identity
        except UserError:
            same = False
        if same:
            say(f"{what}: going on with what an interrupted command has done")
            return
    _clear(folder)
    write_json(folder / IDENTITY, {"identity": identity})


def _empty(folder: Path, world: World) -> None:
    if world.is_main:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Remove all but the lock, which goes with the folder when it is freed."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not path.name.startswith(LOCK):
            path.unlink(missing_ok=True)
