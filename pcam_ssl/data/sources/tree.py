"""A folder of files, on disk or inside a zip file, which is read without unpacking."""

import os
import zipfile
from bisect import bisect_right
from itertools import compress
from operator import attrgetter
from pathlib import Path
from posixpath import basename, splitext

import numpy as np

from pcam_ssl.data.image_files import ENTRY_FIELDS, FolderImages, ZipImages
from pcam_ssl.data.images import SUFFIXES, BadImage
from pcam_ssl.errors import UserError


class FolderTree:
    """The files below a folder. `names` are sorted relative paths with /, without hidden files."""

    def __init__(self, path: Path):
        self.path = path
        self.names = []
        for folder, folders, files in os.walk(path):
            folders[:] = [name for name in folders if not _hidden(name)]
            relative = Path(folder).relative_to(path).as_posix()
            self.names += [name if relative == "." else f"{relative}/{name}" for name in files if not _hidden(name)]
        self.names.sort()

    def images(self, names: list[str]) -> FolderImages:
        """The files of these names, read one at a time."""
        return FolderImages(self.path, names)

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises BadImage where it cannot be read."""
        return self.images([name])[0]


class ZipTree:
    """The files of a zip file; see FolderTree.

    Raises UserError where the archive is truncated or an entry's path leads out of the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
            entries = sorted((entry for entry in self._archive.infolist() if not entry.is_dir()), key=attrgetter("filename"))
            fields = [np.fromiter(map(attrgetter(name), entries), np.int64, len(entries)) for name in ENTRY_FIELDS]
        except (zipfile.BadZipFile, EOFError, OverflowError):
            raise UserError(f"{path}: cut short, or not a zip file; download it again") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
        names = [entry.filename for entry in entries]
        for name in names:
            if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
                raise UserError(
                    f"{path}: entry {name!r} leads out of the folder; do not trust this archive, get it from its source again"
                )
        shown = [not any(map(_hidden, name.split("/"))) for name in names]
        # ZipInfo objects of 330,000 patches would take 200 MB until the end of the import. The names are copied because the original
        # strings lie between these objects in memory; only when both are freed does the memory return to the system.
        self.names = [name.encode().decode() for name in compress(names, shown)]
        self._fields = np.stack(fields, axis=1)[shown]
        del entries
        self._archive.NameToInfo.clear()
        self._archive.filelist.clear()

    def images(self, names: list[str]) -> ZipImages:
        """The entries of these names, read one at a time."""
        rows = [bisect_right(self.names, name) - 1 for name in names]
        return ZipImages(self.path, names, self._fields[rows], self._archive)

    def read(self, name: str) -> bytes:
        """The bytes of an entry. Raises BadImage where they are damaged or encrypted."""
        return self.images([name])[0]


Tree = FolderTree | ZipTree


def image_names(tree: Tree) -> list[str]:
    """Names of the images, by suffix."""
    return [name for name in tree.names if name.lower().endswith(SUFFIXES)]


def read_whole(tree: Tree, name: str) -> bytes:
    """The bytes of a file that the import needs. Raises UserError where it cannot be read."""
    try:
        return tree.read(name)
    except BadImage as bad:
        raise UserError(f"{tree.path}: {name} {bad}; get it again") from None


def stem(name: str) -> str:
    """The file name without folder and suffix."""
    return splitext(basename(name))[0]


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
