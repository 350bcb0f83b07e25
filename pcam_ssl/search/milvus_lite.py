"""The file of a milvus-lite: its name, the command that has it open, its process."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcam_ssl.errors import Held, UserError
from pcam_ssl.files import check_target

FILE_NAME = re.compile(r"[A-Za-z0-9._-]{1,33}\.db")
SQLITE = b"SQLite format 3\0"


def lite_file(uri: str, make: bool) -> Path:
    """The absolute path of a `--store`; `make` is for one that may be new. Raises UserError for a name or file that milvus-lite does not take."""
    file = Path(uri).absolute()
    if not FILE_NAME.fullmatch(file.name):
        raise UserError(
            f"--store {uri}: milvus-lite takes a file NAME.db of at most 36 letters, digits, dots, - and _; name it so, or http://HOST:19530"
        )
    if make:
        check_target("--store", uri, ".db")
    elif file.is_dir():
        raise UserError(f"--store {uri}: is a folder; name a file in it")
    elif not file.is_file():
        raise UserError(f"--store {uri}: is not there; `{shlex.join(['pcam-ssl', 'index', 'RUN', '--store', uri])}` makes it")
    if file.exists() and file.stat().st_size:
        with open(file, "rb") as content:
            if content.read(len(SQLITE)) != SQLITE:
                raise UserError(f"--store {uri}: is no file of milvus-lite; name another")
    return file


@contextmanager
def held(file: Path, uri: str) -> Iterator[None]:
    """Hold a file of milvus-lite for one command. Its own lock does not last: whoever it refuses removes the lock, and the next one gets in."""
    whole = file.resolve()
    whole.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(whole.with_name(f".{whole.name}.pcam-ssl.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise Held(f"--store {uri}: another command has it open; wait for that one, or name another file") from None
    except OSError as error:
        raise UserError(
            f"--store {uri}: milvus-lite writes in its folder, which cannot be written ({error.strerror}); copy it to another one"
        ) from None
    try:
        yield
    finally:
        lock.release()


def stop(file: Path) -> None:
    """End the process of milvus-lite that has `file` open."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(file))


@contextmanager
def quiet():
    """Keep the process of milvus-lite from writing its log between our lines: it inherits stderr where it is started."""
    sys.stderr.flush()
    kept, level = os.dup(2), logging.root.manager.disable
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        os.dup2(kept, 2)
        os.close(kept)
