"""Atomic writing of files, JSON with a checked shape, and digests."""

import hashlib
import json
import os
import shutil
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError, first_line

StrPath = str | os.PathLike[str]
"""A path, or what stands for one: a Run, a Dataset."""
KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
PAGE = (".html", ".htm")
"""Suffixes of an HTML page."""
MARKERS = ("run.json", "fold.json", "manifest.json", "embedding.json", "index.json")
"""A folder with one of these files is a run, a fold, a dataset, embeddings, or an index. Its tables must not be overwritten."""
OWN_FILES = ("explore.parquet",)
TEMPORARY = len(".. .part") + 20
"""Characters that `part_of` adds to the name of a temporary file."""


def check_target(option: str, path: StrPath, *suffixes: str) -> None:
    """Check, before any work, that the file `path` can be written and ends in one of `suffixes`. Raises UserError if not.

    `option` is the command-line option that named the file; the error begins with it.
    """
    path = Path(path)
    with _one_line(option, path):
        if path.is_dir():
            raise UserError(f"{option} {path}: is a folder; name a file in it")
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{option} {path}: is written as {suffixes[0][1:]}; name it {path.with_suffix(suffixes[0])}")
        if path.is_symlink() and not path.exists():
            raise UserError(f"{option} {path}: is a link to {os.readlink(path)}, which is not there; name another file")
        if path.exists() and not path.is_file():
            raise UserError(f"{option} {path}: is not a regular file; name another")
        marker = next((name for name in MARKERS if (path.parent / name).is_file()), None)
        if marker and path.is_file() and path.suffix == ".parquet" and path.name not in OWN_FILES:
            raise UserError(f"{option} {path}: is a table that belongs to {path.parent / marker}; name another file")
        _check_place(option, path, path.absolute())


def check_folder(option: str, path: StrPath) -> None:
    """Check, before any work, that the folder `path` exists and can be written, or can be made. Raises UserError if not."""
    path = Path(path)
    with _one_line(option, path):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{option} {path}: is a link to {os.readlink(path)}, which is not there; choose another place")
        if path.exists() and not path.is_dir():
            raise UserError(f"{option} {path}: is a file, so no folder; choose another place")
        _check_place(option, path, path.absolute() / "file")


@contextmanager
def _one_line(option: str, path: Path):
    """Turn the OSError of a path that cannot be examined (too long, a circle of links, no permission) into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; choose another place") from None


def _check_place(option: str, path: Path, file: Path) -> None:
    """Check that the parents of `file` are folders or can be made, and that its name is short enough. `path` is what the user typed."""
    nearest = next(folder for folder in file.parents if folder.exists() or folder.is_symlink())
    if not nearest.is_dir():
        raise UserError(f"{option} {path}: {nearest} is a file, so no folder; choose another place")
    try:
        # Make an unnamed file: os.access grants root everything, even in /proc, where no file can be made.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UserError(f"{option} {path}: {nearest} cannot be written ({error.strerror}); choose another place") from None
    longest = os.pathconf(nearest, "PC_NAME_MAX") - TEMPORARY
    for part in file.relative_to(nearest).parts:
        if len(os.fsencode(part)) > longest:
            raise UserError(f"{option} {path}: the name {part[:20]}... is longer than {longest} bytes; choose a shorter one")


def part_of(path: StrPath, suffix: str = "part") -> Path:
    """A hidden name beside `path` for what is not whole yet; another one in every process and thread."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.{suffix}")


@contextmanager
def atomic_write(path: StrPath):
    """Yield a temporary path beside `path`; the file is renamed to `path` only when the block succeeds.

    The file is flushed to disk before it is renamed, so a kill or a full disk leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = part_of(path)
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # An error from writing to an open file names no file, and "disk full" does not help without one.
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def begin_flush(file, start: int, stop: int) -> None:
    """Have the system begin to write bytes `start` to `stop` of an open file to disk, so that `fsync` in the end waits for few.

    A hint: where the system or the file does not take it, nothing happens.
    """
    with suppress(AttributeError, OSError):
        # On Linux this starts the writing, and drops from memory only what lies on the disk already.
        os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)


def remove_folder(path: StrPath) -> None:
    """Remove a folder. It is renamed first: after an interruption no half-removed folder has its name."""
    path = Path(path)
    dropped = path.with_name(f".{path.name}.dropped")
    shutil.rmtree(dropped, ignore_errors=True)
    path.rename(dropped)
    shutil.rmtree(dropped)


def write_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, value) -> None:
    """Write indented JSON atomically. Raises ValueError for NaN, which JSON does not have (use None)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: StrPath, shape: Any = None, again: str = "make it again") -> Any:
    """The value in a JSON file that a command wrote. Raises UserError where it is absent, not JSON, or does not have this `shape`.

    The error ends with `again`, the next step. A shape is one of: a type; a tuple of alternative shapes (None for null); a list with
    the shape of every element; a dict of shapes by key. In a dict, `str` stands for all other keys. Keys without a shape are allowed.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; {again}") from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); {again}") from None
    if (problem := misfit(value, shape)) is not None:
        raise UserError(f"{path}: damaged ({problem}); {again}")
    return value


def misfit(value: Any, shape: Any, place: str = "") -> str | None:
    """How a JSON value differs from `shape` (see `read_json`), in words; None where it fits."""
    if isinstance(shape, tuple):
        problems = [misfit(value, one, place) for one in shape]
        return None if None in problems else problems[0]
    parts: list[tuple[str, Any, Any]] = []
    if isinstance(shape, dict) and isinstance(value, dict):
        absent = [key for key in shape if key is not str and key not in value]
        if absent:
            return f"{place + '.' if place else ''}{absent[0]} is absent"
        shapes = {**(dict.fromkeys(value, shape[str]) if str in shape else {}), **shape}
        parts = [(f"{place}.{key}" if place else key, value[key], inner) for key, inner in shapes.items() if key is not str]
    elif isinstance(shape, list) and isinstance(value, list):
        parts = [(f"{place}[{number}]", each, shape[0]) for number, each in enumerate(value)]
    elif shape is not None or place:
        wanted = shape if isinstance(shape, type) else type(shape)
        # In Python True is an int; in JSON it is not a number.
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            return f"{place or 'the file'} holds {KINDS.get(type(value), 'something else')}, not {KINDS[wanted]}"
    return next((problem for part in parts if (problem := misfit(part[1], part[2], part[0])) is not None), None)


def digest_text(text: str) -> str:
    """SHA-256 of UTF-8 text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: StrPath, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
