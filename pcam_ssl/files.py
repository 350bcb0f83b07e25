"""Writing files whole or not at all, and digests of what was written. No torch."""

import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path

from pcam_ssl.errors import UserError


def check_target(option: str, path: Path, suffix: str) -> None:
    """Before any work: whether a file `path` that ends in `suffix` can be written. Raises UserError where it cannot."""
    if path.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file in it")
    if path.suffix != suffix:
        raise UserError(f"{option} {path}: is written as {suffix[1:]}; name it {path.with_suffix(suffix)}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise UserError(f"{option} {path}: {nearest} is a file, so no folder; choose another place")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"{option} {path}: {nearest} cannot be written; choose another place")


@contextmanager
def atomic_write(path: Path | str):
    """Yield a temporary path beside `path`; it takes the name `path` only when the block succeeds.

    The file is flushed to disk before it is renamed, so a kill or a full disk leaves the old file or the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
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


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value) -> None:
    """Write indented JSON atomically; NaN is refused, since JSON has none (use None)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str):
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest_text(text: str) -> str:
    """SHA-256 of UTF-8 text, as hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def digest_file(path: Path | str, algorithm: str = "sha256") -> str:
    """Digest of a file's bytes, as hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()
