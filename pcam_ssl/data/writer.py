"""Writing a DATASET folder as a stream, completely or not at all, with statistics and digest computed on the way."""

import datetime
import errno
import hashlib
import os
import platform
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from pcam_ssl import __version__
from pcam_ssl.data.dataset import MANIFEST, PATCHES, PIXELS, SAMPLE_SUBMISSION
from pcam_ssl.data.images import measure
from pcam_ssl.errors import UserError
from pcam_ssl.files import begin_flush, check_folder, write_json
from pcam_ssl.render.format import size
from pcam_ssl.tables import PATCH_COLUMNS, conform, write_table

DIGEST_COLUMNS = ["id", "split", "label", "wsi", "x", "y"]
FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SPARE_BYTES = 64 * 2**20
WRITE_BYTES = 2**20
"""One write of 3.5 MB takes up to four times the CPU time of several of 1 MB."""
FLUSH_BYTES = 16 * 2**20
"""So much is written before the system is asked to put it on the disk."""
JOINED = 64
"""Number of appended tables that are concatenated to one. A small table takes 30 kB, whatever it holds."""
CSV_ROWS = 10_000


def refuse_existing(path: Path | str, option: str = "DATASET") -> None:
    """Raises UserError where `path` exists or a folder cannot be made there."""
    if os.path.lexists(path):
        raise UserError(f"{path}: already exists; choose another name, or delete it first")
    check_folder(option, path)


def check_space(
    folder: Path,
    needed_bytes: int,
    advice: str = "free some, or name a dataset on another disk",
    spare_bytes: int = SPARE_BYTES,
) -> None:
    """Raises UserError, which ends with `advice`, where the disk of `folder` has not `needed_bytes` and `spare_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + spare_bytes:
        wanted = f"{size(needed_bytes + spare_bytes)} needed, {size(free)} free"
        raise UserError(f"{folder}: not enough disk space ({wanted}); {advice}")


class DatasetWriter:
    """Context manager that streams patches into a temporary folder beside `path` and renames it to `path` at the end.

    On any error, Ctrl-C included, the folder is removed. A folder left by a killed process is removed by the next writer of the
    same name. `size_px` None means the size of the first patches. `expected` is the number of patches, where known; free disk space
    is checked before the first is written. `notes` and `sample_submission` may be set until the block ends. Raises UserError where
    `path` exists, an id is repeated, nothing was appended, or the disk is full.
    """

    def __init__(self, path: Path | str, size_px: int | None, *, source: str, source_format: str, expected: int = 0):
        self.path = Path(path)
        self.size_px = size_px
        self.notes: dict = {}
        self.sample_submission: list[str] | None = None
        self._source = {"source": source, "source_format": source_format}
        self._expected = expected
        self._rows = 0
        self._flushed = 0
        self._columns: list[pd.DataFrame] = []
        self._parts: list[pd.DataFrame] = []
        self._digest = hashlib.sha256()

    def __enter__(self) -> "DatasetWriter":
        refuse_existing(self.path)
        self.path = self.path.parent.resolve() / self.path.name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._clear_abandoned()
            self.scratch = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent))
        except OSError as error:
            raise UserError(f"{self.path.parent}: cannot be written ({error.strerror}); name a dataset elsewhere") from None
        self.scratch.chmod(0o777 & ~_umask())
        self._lock = FileLock(self.scratch / ".lock")
        self._lock.acquire()
        self._pixels = open(self.scratch / PIXELS, "wb")
        return self

    def append(self, pixels, ids, split, labels=None, wsi=None, x=None, y=None, statistics=None) -> None:
        """Add B patches: pixels uint8 [B, H, H, 3]; the other columns have length B, or are one value, or None where unknown.

        `statistics` is the result of `measure(pixels)`, where the caller already has it.
        """
        pixels = np.ascontiguousarray(pixels)
        if not self._rows:
            self.size_px = self.size_px or pixels.shape[1]
            check_space(self.path.parent, max(self._expected, len(pixels)) * 3 * self.size_px**2)
            self._write_header(0)
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (self.size_px, self.size_px, 3):
            raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, not uint8 [B, {self.size_px}, {self.size_px}, 3]")
        values = pixels.reshape(-1)
        for start in range(0, len(values), WRITE_BYTES):
            self._pixels.write(values[start : start + WRITE_BYTES].data)
        if self._pixels.tell() >= self._flushed + FLUSH_BYTES:
            begin_flush(self._pixels, self._flushed, self._pixels.tell())
            self._flushed = self._pixels.tell()
        self._digest.update(pixels.data)
        columns = {
            "id": ids,
            "row": np.arange(len(pixels)) + self._rows,
            "split": split,
            "label": labels,
            "wsi": wsi,
            "x": x,
            "y": y,
        }
        frame = pd.DataFrame(columns | (measure(pixels) if statistics is None else statistics), index=range(len(pixels)))
        self._columns.append(frame)
        if len(self._columns) == JOINED:
            self._join()
        self._rows += len(pixels)

    def _join(self) -> None:
        # Dtypes of many small tables would take longer than the digest.
        if self._columns:
            self._parts.append(conform(pd.concat(self._columns, ignore_index=True), PATCH_COLUMNS))
            self._columns.clear()

    def __exit__(self, kind, error, trace) -> None:
        try:
            if error is None:
                self._finish()
        except OSError as problem:
            error = problem
            if problem.errno not in FULL_DISK:
                raise
        finally:
            with suppress(OSError):  # on a full disk closing fails too
                self._pixels.close()
            self._lock.release()
            shutil.rmtree(self.scratch, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            message = f"{self.path.parent}: the disk is full ({error.strerror}); nothing was kept: free some space and run it again"
            raise UserError(message) from error

    def _write_header(self, rows: int) -> None:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, self.size_px, self.size_px, 3)}
        self._pixels.seek(0)
        np.lib.format.write_array_header_1_0(self._pixels, header)

    def _finish(self) -> None:
        if not self._rows:
            raise UserError(f"{self._source['source']}: no patches; nothing was written")
        self._join()
        patches = pd.concat(self._parts, ignore_index=True)
        self._parts.clear()
        repeated = patches["id"][patches["id"].duplicated()].unique()
        if len(repeated):
            named = ", ".join(repeated[:5])
            raise UserError(f"{self._source['source']}: {len(repeated)} ids occur more than once ({named}); name each patch once")
        self._write_header(len(patches))
        self._pixels.flush()
        os.fsync(self._pixels.fileno())
        for start in range(0, len(patches), CSV_ROWS):
            part = patches[DIGEST_COLUMNS].iloc[start : start + CSV_ROWS]
            self._digest.update(part.to_csv(index=False, header=start == 0, lineterminator="\n").encode())
        write_table(self.scratch / PATCHES, patches)
        if self.sample_submission is not None:
            sample = pd.DataFrame({"id": self.sample_submission, "label": 0})
            sample.to_csv(self.scratch / SAMPLE_SUBMISSION, index=False, lineterminator="\n")
        write_json(self.scratch / MANIFEST, self._manifest(patches))
        self._pixels.close()
        self._lock.release()
        (self.scratch / ".lock").unlink(missing_ok=True)
        refuse_existing(self.path)
        os.rename(self.scratch, self.path)

    def _manifest(self, patches: pd.DataFrame) -> dict:
        return {
            **self._source,
            "patches": len(patches),
            "size_px": self.size_px,
            "counts": count_patches(patches),
            "n_slides": int(patches["wsi"].nunique()),
            "digest": self._digest.hexdigest(),
            "notes": self.notes,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": {
                "pcam-ssl": __version__,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "pandas": pd.__version__,
            },
        }

    def _clear_abandoned(self) -> None:
        for folder in self.path.parent.glob(f".{self.path.name}.*.part"):
            try:
                FileLock(folder / ".lock", timeout=0).acquire()
            except (Timeout, OSError):
                continue
            shutil.rmtree(folder, ignore_errors=True)


def count_patches(patches: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Patches by split and label: {split: {"tumor": n, "normal": n, "unlabelled": n}}, splits in the order train, valid, test."""
    order = {"train": 0, "valid": 1, "test": 2}
    counts = {}
    for split, part in sorted(patches.groupby("split"), key=lambda item: order[item[0]]):
        label = part["label"]
        counts[split] = {"tumor": int((label == 1).sum()), "normal": int((label == 0).sum()), "unlabelled": int(label.isna().sum())}
    return counts


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
