"""Files of arrays that are filled batch by batch, by one process or several. What is done outlives a kill.

Each batch is the same whoever computes it, so several processes write what one would, to the bit on CPU.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from pcam_ssl.data.writer import check_space
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.terminal import progress

FLUSH_S = 10.0
"""A kill costs what was computed since the last flush."""
ALLOCATED_BY = 2**12

Values = Sequence[np.ndarray]
"""What is computed of a batch: an array `[b, ...]` for each file."""


def fill(
    paths: Sequence[Path],
    shape: tuple[int, ...],
    dtype: type,
    compute: Callable[[Sequence[int]], Iterable[Values]],
    *,
    batch_size: int,
    world: World,
    label: str,
    place: Path,
    advice: str = "free some, or name another place",
) -> None:
    """Write the new files `paths`, npy arrays of `shape` `[n, ...]`, from the Values that `compute(numbers)` yields for the batches `numbers`.

    Batch b holds the rows from b x `batch_size` on. Processes share the batches that are missing; all return when all are done. An
    interrupted call is continued by the next one with the same arguments, and finished files stay as they are. Raises UserError, which
    names the folder `place` and ends with `advice`, where the files cannot be written.
    """
    part = _Part(paths, shape, dtype, batch_size, world)
    if world.run_on_main(part.finished):
        return

    def work() -> None:
        missing = part.open()
        mine = missing[world.rank :: world.size]
        saved = time.monotonic()
        with progress(label, min(shape[0], len(missing) * batch_size)) as advance:
            for number, values in zip(mine, compute(mine), strict=True):
                part.write(number, values)
                # The bar is drawn by one process, for all of them.
                advance(len(values[0]) * world.size)
                if time.monotonic() - saved > FLUSH_S:
                    part.flush()
                    saved = time.monotonic()
        part.flush()

    with _one_line(place, advice):
        world.run_on_main(lambda: part.prepare(place, advice))
        with closing(part):
            world.run_on_all(work)
        world.run_on_main(part.finish)


@contextmanager
def _one_line(place: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({first_line(error)}); {advice}") from None


class _Part:
    """The files while they are filled: `.NAME.part`. `.NAME.done` has a byte for each batch that is done, and `.NAME.done-RANK` those of a
    process: pages of a file that several machines write would overwrite each other."""

    def __init__(self, paths: Sequence[Path], shape: tuple[int, ...], dtype: type, batch_size: int, world: World):
        self.targets, self.paths = paths, [path.with_name(f".{path.name}.part") for path in paths]
        self.marks = paths[0].with_name(f".{paths[0].name}-{len(paths)}-{batch_size}.done")
        self.shape, self.dtype, self.batch_size, self.rank = shape, np.dtype(dtype), batch_size, world.rank
        self.n_batches = -(-shape[0] // batch_size)
        self.row_bytes = int(np.prod(shape[1:], dtype=int)) * self.dtype.itemsize
        self.files: list[int] = []

    def finished(self) -> bool:
        """Whether all files have their names already."""
        return all(map(self._whole, self.targets))

    def prepare(self, place: Path, advice: str) -> None:
        """Make the files, with all their disk space, unless an interrupted call left them. Raises OSError where the disk is full."""
        own = sorted(self.marks.parent.glob(f"{self.marks.name}-*"))
        if not (self._marked(self.marks) and all(map(self._whole, self.paths))):
            self._clear(own)
            self._make(place, advice)
            return
        done = np.maximum.reduce([np.fromfile(path, np.uint8) for path in (self.marks, *own) if self._marked(path)])
        self._write_marks(done)
        for path in own:
            path.unlink()

    def _make(self, place: Path, advice: str) -> None:
        check_space(place, self.shape[0] * self.row_bytes * len(self.paths), advice, 0)
        try:
            for path in self.paths:
                np.lib.format.open_memmap(path, "w+", self.dtype, self.shape)
                # Without their disk space a disk that fills is noticed hours later.
                _allocate(path)
            self._write_marks(np.zeros(self.n_batches, np.uint8))
        except OSError:
            self._clear([])
            raise

    def _clear(self, own: list[Path]) -> None:
        for path in (self.marks, *own, *self.paths):
            path.unlink(missing_ok=True)

    def _write_marks(self, done: np.ndarray) -> None:
        """Write all marks, whole or not at all."""
        temporary = self.marks.with_suffix(".new")
        done.tofile(temporary)
        os.replace(temporary, self.marks)

    def _marked(self, path: Path) -> bool:
        return path.exists() and path.stat().st_size == self.n_batches

    def _whole(self, path: Path) -> bool:
        try:
            array = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return False
        return array.shape == self.shape and array.dtype == self.dtype

    def open(self) -> list[int]:
        """Open the files; returns the batches that are missing."""
        self.begin = np.load(self.paths[0], mmap_mode="r").offset
        missing = np.flatnonzero(np.fromfile(self.marks, np.uint8) == 0).tolist()
        own = self.marks.with_name(f"{self.marks.name}-{self.rank}")
        own.write_bytes(bytes(self.n_batches))
        # Several machines may write one file, so it is not memory-mapped.
        self.files = [os.open(path, os.O_WRONLY) for path in (*self.paths, own)]
        self.written: list[int] = []
        return missing

    def write(self, number: int, values: Values) -> None:
        """Write what was computed of a batch."""
        for file, value in zip(self.files[:-1], values, strict=True):
            data = memoryview(np.ascontiguousarray(value, self.dtype)).cast("B")
            at = self.begin + number * self.batch_size * self.row_bytes
            while data:
                count = os.pwrite(file, data, at)
                data, at = data[count:], at + count
        self.written.append(number)

    def flush(self) -> None:
        """Bring the arrays to the disk, then mark their batches as done."""
        *arrays, own = self.files
        for file in arrays:
            os.fsync(file)
        for number in self.written:
            os.pwrite(own, b"\1", number)
        os.fsync(own)
        self.written = []

    def close(self) -> None:
        for file in self.files:
            os.close(file)

    def finish(self) -> None:
        """Give the whole files their names."""
        for target, path in zip(self.targets, self.paths, strict=True):
            os.replace(path, target)
        for path in (self.marks, *self.marks.parent.glob(f"{self.marks.name}-*")):
            path.unlink(missing_ok=True)


def _allocate(path: Path) -> None:
    """Take the disk space of a file that has its length but may have holes. Raises OSError where the disk is full."""
    with open(path, "r+b") as handle:
        length = os.fstat(handle.fileno()).st_size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle.fileno(), 0, length)
            return
        # macOS has no such call. The header is written already.
        handle.seek(begin := min(ALLOCATED_BY, length))
        for at in range(begin, length, ALLOCATED_BY):
            handle.write(bytes(min(ALLOCATED_BY, length - at)))
