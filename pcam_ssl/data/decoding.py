"""Decoding and measuring of patches for an import, in this process or in several, with the same result."""

import math
import os
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from pcam_ssl.data.images import BadImage, decode, edge_px, measure, without_threads
from pcam_ssl.errors import UserError

PROCESSES_FROM = 10_000
"""Patches from which processes pay for their start."""
MOST = 8
CHUNK_PATCHES, CHUNK_BYTES = 128, 4 * 2**20
"""The most patches of a Chunk, and the most bytes that its pixels, or its encoded images, take in memory that processes share."""


@dataclass
class Chunk:
    """Successive records from `first` on: encoded images (BadImage where one cannot be read), or pixels uint8 [B, H, H, 3].

    Sequences other than lists read an image, or raise BadImage, when the image is asked for: in the process that decodes it.
    """

    first: int
    images: Sequence[bytes | BadImage] | np.ndarray


@dataclass(frozen=True)
class Packed:
    """A decoded chunk: the rows of its good records, their pixels [B, H, H, 3] and statistics, the bad records, and the number read."""

    rows: np.ndarray
    pixels: np.ndarray
    statistics: dict
    bad: list[tuple[int, str]]
    read: int


def default_workers(n: int) -> int:
    """Processes that decode `n` patches: one per core, at most 8; this process alone where there are few."""
    return min(os.cpu_count() or 1, MOST) if n >= PROCESSES_FROM else 1


def packed_in_order(chunks: Iterator[Chunk], workers: int, scratch: Path) -> Iterator[Packed]:
    """Yield the chunks, packed by `workers` processes (1: this one), in order; only a few are in memory at a time, and the pixels of one
    are valid until the next is asked for. Processes hand pixels over in a file in the folder `scratch`.

    Raises UserError where a process is killed.
    """
    first = next(chunks)
    size_px = _edge_px(first)
    room = _room(size_px)
    chunks = _cut(chain([first], chunks), room[0])
    if workers == 1:
        pixels = np.empty(room, np.uint8)
        yield from (_pack(chunk, size_px, pixels) for chunk in chunks)
        return
    # Not multiprocessing: its processes would run the user's script again where that has no `if __name__ == "__main__"`.
    from loky import ProcessPoolExecutor
    from loky.process_executor import BrokenProcessPool

    slots, pool = _Slots(scratch, 2 * workers + 2, room), ProcessPoolExecutor(workers)
    waiting: deque[tuple[int, Future]] = deque()
    try:
        for number, chunk in enumerate(chunks):
            slot = number % len(slots.pixels)
            waiting.append((slot, pool.submit(_pack_in_slot, slots.lent(), slot, slots.sent(slot, chunk), size_px)))
            if len(waiting) > 2 * workers:
                yield slots.received(*waiting.popleft())
        while waiting:
            yield slots.received(*waiting.popleft())
    except BrokenProcessPool:
        raise UserError(
            "--workers: a decoding process was killed, perhaps because memory ran out; run it again with --workers 1"
        ) from None
    finally:
        pool.shutdown(kill_workers=bool(waiting))
        slots.close()


class _Slots:
    """Memory that processes share: in each slot the encoded images of a chunk, and its pixels. Pipes would copy both four times.

    It is a file without a name, so a kill leaves nothing; where the system has no such files, one in the folder `scratch`.
    """

    def __init__(self, scratch: Path, count: int, room: tuple[int, ...]):
        self.shapes = (count, CHUNK_BYTES), (count, *room)
        if hasattr(os, "memfd_create"):
            self.file = os.memfd_create("pcam-ssl")
            self.path = f"/proc/{os.getpid()}/fd/{self.file}"
        else:
            self.path = str(scratch / "decoding.tmp")
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT)
        os.truncate(self.file, sum(math.prod(shape) for shape in self.shapes))
        self.encoded, self.pixels = _mapped(*self.lent())

    def lent(self) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """What another process needs to see the slots."""
        return self.path, *self.shapes

    def sent(self, slot: int, chunk: Chunk) -> Chunk:
        """Put pixels, or encoded images that are read already, into a slot; a slice then says where they lie. Images that do not fit are
        sent as they are."""
        if isinstance(chunk.images, np.ndarray):
            self.pixels[slot, : len(chunk.images)] = chunk.images
            return Chunk(chunk.first, slice(len(chunk.images)))
        if not isinstance(chunk.images, list):
            return chunk
        images, begin = [], 0
        for image in chunk.images:
            if isinstance(image, bytes) and (end := begin + len(image)) <= self.encoded.shape[1]:
                self.encoded[slot, begin:end] = np.frombuffer(image, np.uint8)
                image, begin = slice(begin, end), end
            images.append(image)
        return Chunk(chunk.first, images)

    def received(self, slot: int, packed: Future) -> Packed:
        """What a process has packed, with its pixels. They change when the slot is used again."""
        done = packed.result()
        return replace(done, pixels=self.pixels[slot, : len(done.rows)])

    def close(self) -> None:
        os.close(self.file)


def _mapped(path: str, encoded: tuple[int, ...], pixels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The encoded images uint8 `[slots, bytes]` and the pixels uint8 `[slots, B, H, H, 3]` in a file of _Slots."""
    return np.memmap(path, np.uint8, "r+", 0, encoded), np.memmap(path, np.uint8, "r+", math.prod(encoded), pixels)


# A worker serves one import. Here, the next import may get a file of the same name.
_kept = cache(_mapped)


def _pack_in_slot(lent: tuple[str, tuple[int, ...], tuple[int, ...]], slot: int, chunk: Chunk, size_px: int) -> Packed:
    encoded, pixels = _kept(*lent)
    images = chunk.images
    if isinstance(images, slice):
        images = pixels[slot, images]
    elif isinstance(images, list):
        images = [encoded[slot, each].tobytes() if isinstance(each, slice) else each for each in images]
    packed = _pack(Chunk(chunk.first, images), size_px, pixels[slot])
    return replace(packed, pixels=np.empty(0, np.uint8))


def _edge_px(chunk: Chunk) -> int:
    """The patch size of the dataset: the most common one of the first chunk, so that one odd image does not decide it. 0 where no image of
    the chunk can be decoded."""
    if isinstance(chunk.images, np.ndarray):
        return chunk.images.shape[1]
    edges, held = Counter(), 0
    for row in range(len(chunk.images)):
        with suppress(BadImage):
            if isinstance(image := chunk.images[row], bytes):
                held += len(image)
                edges.update(filter(None, [edge_px(image)]))
        if held >= CHUNK_BYTES:
            break
    return edges.most_common(1)[0][0] if edges else 0


def _room(size_px: int) -> tuple[int, ...]:
    """The shape `[B, H, H, 3]` of the pixels of a chunk."""
    edge = max(size_px, 1)
    return max(1, min(CHUNK_PATCHES, CHUNK_BYTES // (3 * edge**2))), edge, edge, 3


def _cut(chunks: Iterator[Chunk], most: int) -> Iterator[Chunk]:
    """The chunks, those of more than `most` records in parts: memory must not grow with the patch size."""
    for chunk in chunks:
        for begin in range(0, len(chunk.images), most):
            yield Chunk(chunk.first + begin, chunk.images[begin : begin + most])


def _pack(chunk: Chunk, size_px: int, room: np.ndarray) -> Packed:
    """A chunk as Packed. Images are decoded into `room` uint8 [B, H, H, 3]."""
    if isinstance(chunk.images, np.ndarray):
        pixels, rows, bad = chunk.images, range(len(chunk.images)), []
    else:
        rows, bad = [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about odd metadata would break the progress bar
            for row in range(len(chunk.images)):
                try:
                    room[len(rows)] = _decode(chunk.images[row], size_px)
                    rows.append(row)
                except BadImage as reason:
                    bad.append((chunk.first + row, str(reason)))
        pixels = room[: len(rows)]
    with without_threads():
        statistics = measure(pixels) if len(pixels) else {}
    return Packed(np.array(rows, dtype=int) + chunk.first, pixels, statistics, bad, len(chunk.images))


def _decode(image: bytes | BadImage, size_px: int) -> np.ndarray:
    if isinstance(image, BadImage):
        raise image
    pixels = decode(image)
    if len(pixels) != size_px:
        raise BadImage(f"is {len(pixels)} px, the others are {size_px} px; a dataset has one size")
    return pixels
