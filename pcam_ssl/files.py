"""Writing files whole or not at all, and digests of what was written."""

import hashlib
import json
import os
import tempfile
import threading
from contextlib import contextmanager
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
"""Suffixes of a page."""
MARKERS = ("run.json", "fold.json", "manifest.json", "embedding.json", "index.json")
"""A folder with one of these is a run, a fold, a dataset, embeddings, or an index: its tables are not to be written over."""
OWN_FILES = ("explore.parquet",)
TEMPORARY = len(".. .part") + 20
"""Characters that `part_of` adds to a name until the file is whole."""


def check_target(option: str, path: StrPath, *suffixes: str) -> None:
    """Before any work: whether a file `path` that ends in one of `suffixes` can be written. Raises UserError where it cannot.

    `option` is what named it on the command line.
    """
    path = Path(path)
    with _told(option, path):
        if path.is_dir():
            raise UserError(f"{option} {path}: is a folder; name a file in it")
        if path.suffix.lower() not in suffixes:
            raise UserError(f"{option} {path}: is written as {suffixes[0][1:]}; name it {path.with_suffix(suffixes[0])}")
        if path.is_symlink() and not path.exists():
            raise UserError(f"{option} {path}: is a link to {os.readlink(path)}, which is not there; name another file")
        if path.exists() and not path.is_file():
            raise UserError(f"{option} {path}: is no file that could be replaced; name another")
        marker = next((name for name in MARKERS if (path.parent / name).is_file()), None)
        if marker and path.is_file() and path.suffix == ".parquet" and path.name not in OWN_FILES:
            raise UserError(f"{option} {path}: is a table that belongs to {path.parent / marker}; name another file")
        _check_place(option, path, path.absolute())


def check_folder(option: str, path: StrPath) -> None:
    """Before any work: whether a folder `path` is there to write into, or can be made. Raises UserError where it cannot."""
    path = Path(path)
    with _told(option, path):
        if path.is_symlink() and not path.exists():
            raise UserError(f"{option} {path}: is a link to {os.readlink(path)}, which is not there; choose another place")
        if path.exists() and not path.is_dir():
            raise UserError(f"{option} {path}: is a file, so no folder; choose another place")
        _check_place(option, path, path.absolute() / "file")


@contextmanager
def _told(option: str, path: Path):
    """What the system says of a path that it cannot even look at: too long, a circle of links, a folder that is closed to us."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}; choose another place") from None


def _check_place(option: str, path: Path, file: Path) -> None:
    """Whether the parents of `file` are folders, or can be made, and its name is short enough; `path` is what was asked for."""
    nearest = next(folder for folder in file.parents if folder.exists() or folder.is_symlink())
    if not nearest.is_dir():
        raise UserError(f"{option} {path}: {nearest} is a file, so no folder; choose another place")
    try:
        # A file without a name: os.access says yes to root even where nothing can be made, as in /proc.
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
    """Yield a temporary path beside `path`; it takes the name `path` only when the block succeeds.

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
        # Writing to an open file names no file; "disk full" without one helps nobody.
        error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: StrPath, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StrPath, value) -> None:
    """Write indented JSON atomically; NaN is refused, since JSON has none (use None)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: StrPath, shape: Any = None, again: str = "make it again") -> Any:
    """Read a JSON file that a command wrote. Raises UserError, which ends in `again`, where it is absent, no JSON, or not of this `shape`.

    A shape is a type, a tuple of shapes of which one fits (None for null), a list of the shape of every element, or a dict of shapes by
    key, in which `str` stands for every further key. Keys that a shape does not name may stand beside those that it does.
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
    """What about a JSON value is not of this `shape` (of `read_json`), None where nothing is."""
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
        # To Python, true is a number; to a reader of JSON it is not.
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
