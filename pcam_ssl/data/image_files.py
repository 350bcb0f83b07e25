"""Encoded images of a folder or a zip file as sequences that any process can read: pickled are their places, not their bytes."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pcam_ssl.data.images import BadImage
from pcam_ssl.errors import UserError, first_line

ENTRY_FIELDS = ("header_offset", "compress_size", "file_size", "CRC", "flag_bits", "compress_type", "_end_offset")
"""Fields of ZipInfo that reading an entry needs. The last one, where Python has it, serves to refuse overlapping entries."""
ENTRY_FIELDS = tuple(name for name in ENTRY_FIELDS if name in zipfile.ZipInfo.__slots__)


class FolderImages:
    """The files `names`, relative to a folder. An item is the bytes of a file, a slice the sequence of these files.

    Items raise BadImage where the file cannot be read.
    """

    def __init__(self, folder: Path, names: list[str]):
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, n: int | slice) -> "bytes | FolderImages":
        if isinstance(n, slice):
            return FolderImages(self.folder, self.names[n])
        try:
            return (self.folder / self.names[n]).read_bytes()
        except OSError as error:
            raise BadImage(f"cannot be read ({error.strerror})") from None


class ZipImages:
    """The entries `names` of a zip file, whose ENTRY_FIELDS are int64 `[n, F]`; items as of FolderImages.

    They are read through `archive`; another process opens the file itself, without its list of entries, and raises UserError where it is gone.
    """

    def __init__(self, path: Path, names: list[str], fields: np.ndarray, archive: zipfile.ZipFile | None = None):
        self.path, self.names, self.fields, self._archive = path, names, fields, archive

    def __getstate__(self):
        return {"path": self.path, "names": self.names, "fields": self.fields, "_archive": None}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, n: int | slice) -> "bytes | ZipImages":
        if isinstance(n, slice):
            return ZipImages(self.path, self.names[n], self.fields[n], self._archive)
        entry = zipfile.ZipInfo(self.names[n])
        for field, value in zip(ENTRY_FIELDS, self.fields[n].tolist(), strict=True):
            setattr(entry, field, value)
        if self._archive is None:
            self._archive = _opened(self.path)
        try:
            return self._archive.read(entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
            raise BadImage(f"cannot be read from the archive ({first_line(error)})") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return _Unlisted(path)
    except OSError as error:
        raise UserError(f"{path}: can no longer be read ({error.strerror}); leave it where it is until the import ends") from None


class _Unlisted(zipfile.ZipFile):
    """A zip file whose list of entries is not read: for 330,000 patches that takes seconds, and each chunk opens the file."""

    def _RealGetContents(self) -> None:
        pass
