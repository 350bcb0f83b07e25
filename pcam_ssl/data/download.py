"""Downloading PatchCamelyon (Zenodo, record 2546921). Interrupted transfers continue, and every file is checked by its published MD5."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_ssl.data.connection import Lost, answer, check_address, insist
from pcam_ssl.data.writer import FULL_DISK, check_space
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file
from pcam_ssl.terminal import progress, say

BLOCK_BYTES = 2**16
"""Size of a block. An incomplete block is dropped, so a broken connection loses less than this."""
URL = "https://zenodo.org/records/2546921/files"
_STEM = "camelyonpatch_level_2_split"
MD5 = {
    f"{_STEM}_train_x.h5.gz": "1571f514728f59376b705fc836ff4b63",
    f"{_STEM}_train_y.h5.gz": "35c2d7259d906cfc8143347bb8e05be7",
    f"{_STEM}_valid_x.h5.gz": "d8c2d60d490dbd479f8199bdfa0cf6ec",
    f"{_STEM}_valid_y.h5.gz": "60a7035772fbdb7f34eb86d4420cf66a",
    f"{_STEM}_test_x.h5.gz": "d5b63470df7cfa627aeec8b9dc0c066e",
    f"{_STEM}_test_y.h5.gz": "2b85f58b927af9964a4c15b8f7e8f179",
    f"{_STEM}_train_meta.csv": "5a3dd671e465cfd74b5b822125e65b0a",
    f"{_STEM}_valid_meta.csv": "3455fd69135b66734e1008f3af684566",
    f"{_STEM}_test_meta.csv": "67589e00a4a37ec317f2d1932c7502ca",
}


def download_pcam(folder: Path | str, url: str = URL, sums: dict[str, str] = MD5, pause_s: float = 2.0) -> list[Path]:
    """Download the files of `sums` (MD5 by file name) from `url`/NAME into `folder` and return their paths.

    Files that are present with the right MD5 are kept. An interrupted transfer is tried up to 5 times; running the command again
    continues it from the `.part` file. Raises UserError where the server cannot be reached or lacks a file, the disk is full, or an
    MD5 is wrong.
    """
    folder = Path(folder)
    check_address(url)
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return [_fetch(folder / name, f"{url.rstrip('/')}/{name}?download=1", md5, pause_s) for name, md5 in sums.items()]


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Tell an OSError of files that are written in `folder` as a UserError: a full disk, a folder that cannot be written."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL_DISK
        what = "the disk is full" if full else f"cannot be written ({error.strerror})"
        raise UserError(f"{folder}: {what}; {'free some space and run it again' if full else 'name another folder'}") from error


def _fetch(target: Path, url: str, md5: str, pause_s: float) -> Path:
    if target.is_file():
        if digest_file(target, "md5") != md5:
            raise UserError(f"{target}: its MD5 is not that of the published file; delete it and run this again")
        say(f"{target.name}: already present, MD5 verified")
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        got = insist(lambda: _transfer(part, url), target.name, pause_s)
    except Lost as lost:
        held = part.stat().st_size if part.exists() else 0
        raise UserError(f"{url}: {lost}; {held:,} bytes are kept: run the same command to continue") from None
    if got != md5:
        part.unlink()
        raise UserError(f"{target}: downloaded bytes have MD5 {got}, the published file has {md5}; they were removed: run it again")
    part.rename(target)
    return target


def _transfer(part: Path, url: str) -> str:
    """Append the missing bytes to `part` and return the MD5 of the whole file. Raises Lost where the connection breaks."""
    digest, held = hashlib.md5(), 0
    if part.exists():
        digest, held = _digest_so_far(part)
    with answer(url, held) as got:
        if got.status_code == 416:  # no bytes follow: the part is complete, or it is not the beginning of this file
            return digest.hexdigest()
        if got.status_code == 200:  # the server ignores Range, so start over
            digest, held = hashlib.md5(), 0
        remaining = int(got.headers.get("Content-Length", 0))
        check_space(part.parent, remaining)
        _receive(got, part, held, remaining, digest)
    return digest.hexdigest()


def _receive(got, part: Path, held: int, remaining: int, digest) -> None:
    received = 0
    with open(part, "ab" if held else "wb") as out, progress(part.stem, (held + remaining) / 1e6, unit="MB") as advance:
        advance(held / 1e6)
        for block in got.iter_content(BLOCK_BYTES):
            out.write(block)
            digest.update(block)
            received += len(block)
            advance(len(block) / 1e6)
    if remaining and received < remaining:
        raise Lost("connection lost")


def _digest_so_far(part: Path):
    digest, held = hashlib.md5(), 0
    with open(part, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            held += len(block)
    return digest, held
