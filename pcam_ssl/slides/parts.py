"""What is finished of slides that are being cut: a folder beside the dataset, so that a killed command goes on with the next slide."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from pcam_ssl import __version__
from pcam_ssl.data.writer import FULL_DISK
from pcam_ssl.errors import UserError
from pcam_ssl.files import atomic_write, begin_flush, digest_file, digest_text, read_json, write_json
from pcam_ssl.slides.plan import Cutting, Plan
from pcam_ssl.slides.reader import slide_name
from pcam_ssl.slides.tissue import outlined
from pcam_ssl.tables import read_table, write_table

PICTURES = (".png", "-thumbnail.jpg", ".json")
"""What of a slide goes into the dataset, after the slide's name."""
TOGETHER = 1024
"""Tiles that are told of at once, at least; a table takes milliseconds, however few rows it has."""
BATCH_BYTES = 48 * 2**20
"""Pixels that are handed to the dataset at once, at most."""


class Region(NamedTuple):
    """Tiles that were read together: their row numbers [B] in the plan, contiguous pixels uint8 [B, H, H, 3], statistics of each."""

    plan: Plan
    rows: np.ndarray
    pixels: np.ndarray
    statistics: dict


class Parts:
    """Context manager of the folder `DATASET.part`. Of each slide it holds pixels, a table, pictures and, once whole, a JSON file.

    On an error slides that are not whole are removed, and so is a folder that holds none. Raises UserError where another command works
    in it, and where the disk fills.
    """

    def __init__(self, target: Path, cutting: Cutting, classes: Mapping[str, int]):
        self.folder = target.with_name(f"{target.name}.part")
        # Parts of earlier versions held pixels in another order.
        self._settings = {**asdict(cutting), "classes": dict(sorted(classes.items())), "version": __version__, "order": "rows"}
        # One for all: memory that is new costs more than the reading. Not memory-mapped, since all pages that were touched would count as
        # memory of this process.
        edge = cutting.size_px
        self._batch = np.empty((max(1, BATCH_BYTES // (3 * edge**2)), edge, edge, 3), np.uint8)

    def __enter__(self) -> "Parts":
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"{self.folder}: another command works there; wait for it, or name another dataset") from None
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._lock.release()
        if error is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        whole = {path.stem for path in self.folder.glob("*.json")}
        for pixels in self.folder.glob("*.pixels"):
            if pixels.stem not in whole:
                pixels.unlink(missing_ok=True)
        if not whole:
            shutil.rmtree(self.folder, ignore_errors=True)

    def key(self, slide: Path, annotations: Path | None) -> str:
        """Digest of all that the tiles of a slide depend on. The slide counts by path, size and time: hashing gigabytes takes minutes."""
        known = slide.stat()
        told = {"slide": str(slide.resolve()), "bytes": known.st_size, "modified_ns": known.st_mtime_ns}
        told |= {"annotations": annotations and digest_file(annotations)}
        return digest_text(json.dumps(told | self._settings))

    def holds(self, slide: Path, annotations: Path | None) -> bool:
        """Whether the slide was cut to the end, from these files and with these settings."""
        file = self._file(slide, ".json")
        return file.is_file() and read_json(file, {"key": str}, f"delete {self.folder}")["key"] == self.key(slide, annotations)

    def draw(self, plan: Plan, thumbnail: np.ndarray, mask: np.ndarray) -> None:
        """Write the thumbnail, plain and with the tissue outlined."""
        slide = plan.slide.path
        self._file(slide, ".json").unlink(missing_ok=True)
        for ending, pixels in ((".png", outlined(thumbnail, mask)), ("-thumbnail.jpg", thumbnail)):
            with self.room(), atomic_write(self._file(slide, ending)) as temporary:
                temporary.write_bytes(cv2.imencode(ending[-4:], cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1])

    def write(self, plan: Plan, regions: Iterable[Region], annotations: Path | None) -> Iterator[pd.DataFrame]:
        """Write the tiles of one slide, each to its place, and yield their table from the top, some rows as soon as all before them lie there.

        When the last is yielded, `holds` is true of the slide.
        """
        count, amount = len(plan.tiles), 3 * plan.cutting.size_px**2
        lies, begin = np.zeros(count, bool), 0
        statistics: dict[str, np.ndarray] = {}
        tables = []

        def complete(end: int) -> pd.DataFrame:
            part = {name: values[begin:end] for name, values in statistics.items()}
            tables.append(plan.tiles.iloc[begin:end].assign(**part))
            return tables[-1]

        with self.room(), open(self._file(plan.slide.path, ".pixels"), "wb") as file:
            for region in regions:
                for first, last in _runs(region.rows):
                    file.seek(int(region.rows[first]) * amount)
                    file.write(region.pixels[first:last].data)
                for name, values in region.statistics.items():
                    values = np.asarray(values, None if isinstance(values, np.ndarray) else object)
                    statistics.setdefault(name, np.empty(count, values.dtype))[region.rows] = values
                lies[region.rows] = True
                end = begin + int(np.argmin(lies[begin:]))
                if end - begin >= TOGETHER:
                    file.flush()
                    begin_flush(file, begin * amount, end * amount)
                    yield complete(end)
                    begin = end
            file.flush()
            os.fsync(file.fileno())
        last_table = complete(count)
        with self.room():
            write_table(self._file(plan.slide.path, ".parquet"), pd.concat(tables))
            write_json(self._file(plan.slide.path, ".json"), self._told(plan, annotations))
        yield last_table

    def told(self, slide: Path) -> dict:
        """What is kept of a finished slide: how many `tiles`, of which `level`, `tile` with its mpp, and where it came from."""
        return read_json(self._file(slide, ".json"), {"tiles": int, "level": int, "tile": {"mpp": (float, int)}})

    def tables(self, slide: Path) -> Iterator[pd.DataFrame]:
        """The table of a finished slide, from the top, some rows at a time."""
        table, _ = read_table(self._file(slide, ".parquet"))
        for start in range(0, len(table), TOGETHER):
            yield table.iloc[start : start + TOGETHER]

    def pixels(self, slide: Path, rows: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Rows that `write` or `tables` yielded, some at a time, with their pixels uint8 [B, H, H, 3], which the next ones replace."""
        with open(self._file(slide, ".pixels"), "rb") as file:
            file.seek(int(rows.index[0]) * self._batch[0].nbytes)
            for start in range(0, len(rows), len(self._batch)):
                part = rows.iloc[start : start + len(self._batch)]
                pixels = self._batch[: len(part)]
                file.readinto(pixels.data)
                yield part, pixels

    def copy_pictures(self, slide: Path, folder: Path) -> None:
        """Copy what is to be looked at, and the slide's JSON, into a folder."""
        for ending in PICTURES:
            shutil.copy(self._file(slide, ending), folder)

    def _file(self, slide: Path, ending: str) -> Path:
        return self.folder / f"{slide_name(slide)}{ending}"

    def _told(self, plan: Plan, annotations: Path | None) -> dict:
        slide, view = plan.slide, plan.view
        known = slide.path.stat()
        return {
            "slide": str(slide.path.resolve()),
            "bytes": known.st_size,
            "identity": slide.identity,
            "vendor": slide.vendor,
            "width_px": slide.width,
            "height_px": slide.height,
            "mpp": plan.slide_mpp,
            "offset_px": list(slide.offset),
            "level": view.level,
            "tile": {
                "size_px": plan.cutting.size_px,
                "stride_px": plan.cutting.stride_px,
                "mpp": view.mpp,
                "level0_px": plan.cutting.size_px * view.step,
            },
            "tiles": len(plan.tiles),
            "thumbnail_mpp": plan.thumbnail_mpp,
            "annotations": annotations and annotations.name,
            "key": self.key(slide.path, annotations),
        }

    @contextmanager
    def room(self):
        """Context manager that says of a full disk that finished slides are kept. Raises UserError."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            kept = "finished slides are kept there: make room, then run the same command"
            raise UserError(f"{self.folder}: the disk is full ({error.strerror}); {kept}") from error


def _runs(rows: np.ndarray) -> Iterator[tuple[int, int]]:
    """From where to where rising row numbers [B] follow one another."""
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    yield from pairwise([0, *ends.tolist(), len(rows)])
