"""Fill the cache of a frozen backbone's features: each view of each patch goes through the backbone once.

A kill loses at most the batches of a few seconds; the next command goes on. A second command that wants the same features waits.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from pcam_ssl.data.batches import EvalStream, load
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.features import CACHE, FORMAT, Features, features_root, open_folder
from pcam_ssl.data.fixed_views import D4, PLAIN, FixedViews
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.views import id_key
from pcam_ssl.data.writer import check_space
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.models.inference import all_views
from pcam_ssl.models.network import Network
from pcam_ssl.terminal import progress, say

FLUSH_S = 10.0
BATCH = 128
ALLOCATED_BY = 2**12
ELSEWHERE = f"free some, set {CACHE} to a folder on another disk, or set features.cache=false"
LARGEST = float(np.finfo(np.float16).max)


def backbone_digest(network: Network) -> str:
    """SHA-256 of all that decides what the backbone says of a patch, apart from the image size: weights, normalisation, resizing, layers."""
    config = network.config
    digest = hashlib.sha256(repr((config.mean, config.std, config.interpolation, config.layers, config.tokens)).encode())
    for name, value in network.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cached_features(
    dataset: Dataset,
    network: Network,
    views: Sequence[FixedViews],
    *,
    precision: Precision,
    world: World,
    workers: int = 0,
    batch_size: int = BATCH,
) -> Features:
    """Features of all patches under the given views, from the cache; missing ones are computed and kept.

    Raises UserError where the cache cannot be written, the disk is full, or a feature is not a finite float16.
    """
    identity = {
        "format": FORMAT,
        "dataset": dataset.digest,
        "backbone": backbone_digest(network),
        "image_size": network.config.image_size,
        "precision": precision.name,
    }
    facts = {"name": network.config.name, "n": len(dataset), "dimension": network.n_features}
    root = features_root(dataset.path, dataset.digest)
    folder = world.run_on_main(lambda: open_folder(root, _slug(network.config.name), identity, facts))
    features = Features(folder, len(dataset), network.n_features)
    with ExitStack() as lock:
        missing = world.run_on_main(lambda: _missing(features, views, lock))
        for group in missing:
            _fill(features, dataset, network, group, precision, world, workers, batch_size)
    return features


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[-40:].strip("-.")


@dataclass(frozen=True)
class _Group:
    """Views that are computed together: `d4` (all eight, or the plain one) or the random views of one policy."""

    names: tuple[str, ...]
    policy: FixedViews | None = None


def _missing(features: Features, views: Sequence[FixedViews], lock: ExitStack) -> list[_Group]:
    """The groups of views that are not there, under the lock of the folder where there are any."""

    def absent() -> list[_Group]:
        groups = [
            _Group(D4 if each.names == D4 else PLAIN) if each.policy in ("none", "d4") else _Group(each.names, each)
            for each in views
        ]
        groups = [group for group in groups if not all([features.whole(name) for name in group.names])]
        wide = any(group.names == D4 for group in groups)
        return list({group.names: group for group in groups if not (wide and group.names == PLAIN)}.values())

    if not absent():
        return []
    held = FileLock(features.folder / ".lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"{features.folder}: another process computes these features; waiting for it")
        held.acquire()
    lock.callback(held.release)
    return absent()


def _fill(
    features: Features,
    dataset: Dataset,
    network: Network,
    group: _Group,
    precision: Precision,
    world: World,
    workers: int,
    batch_size: int,
) -> None:
    """Compute the views of a group. Processes share the batches; what is done is marked batch by batch."""
    random = group.policy
    keys = np.array([id_key(each) for each in dataset.patches.id], np.uint64) if random else np.zeros(len(dataset), np.uint64)
    drawn, count = (random.drawn, len(group.names)) if random else (None, 0)
    stream = EvalStream(Pixels(dataset.path / PIXELS), dataset.patches.row.to_numpy(), keys, batch_size, drawn, count, 0)
    part = _Part(features, group.names, len(stream), batch_size)
    with _said(features.folder):
        world.run_on_main(part.prepare)
        part.open()
        mine = [number for number in range(len(stream)) if number % world.size == world.rank and not part.done[number]]
        network.eval()
        saved = time.monotonic()
        with torch.inference_mode(), precision.autocast(world.device), _bar(len(mine) * batch_size, group, world) as advance:
            for number, batch in zip(mine, load(stream, mine, workers, world.device), strict=True):
                views = list(all_views(batch, len(group.names) == len(D4), world.device))
                # The first of all views is the plain one, which random views come after.
                values = [network.features(view).float().cpu().numpy() for view in (views[1:] if random else views)]
                part.write(number, values)
                advance(len(batch["place"]))
                if time.monotonic() - saved > FLUSH_S:
                    part.flush()
                    saved = time.monotonic()
        part.flush()
    world.gather(None)
    world.run_on_main(part.finish)


def _bar(total: int, group: _Group, world: World):
    views = "1 view" if len(group.names) == 1 else f"{len(group.names)} views"
    return progress(f"features, {views}", total) if world.is_main else _silent()


@contextmanager
def _silent() -> Iterator:
    yield lambda *_: None


@contextmanager
def _said(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: features cannot be written ({first_line(error)}); {ELSEWHERE}") from None


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


class _Part:
    """Files of a group of views while they are filled: `.VIEW.npy.part`, and a byte for each batch that is done."""

    def __init__(self, features: Features, names: tuple[str, ...], n_batches: int, batch_size: int):
        self.features, self.names, self.batch_size = features, names, batch_size
        self.paths = [features.folder / f".{name}.npy.part" for name in names]
        self.marks = features.folder / f".{names[0]}-{len(names)}-{batch_size}.done"
        self.shape, self.n_batches = (features.n, features.dimension), n_batches

    def prepare(self) -> None:
        """Make the files, with all their disk space, unless an interrupted command left them. Raises OSError where the disk is full."""
        size = self.shape[0] * self.shape[1] * 2
        if self.marks.exists() and self.marks.stat().st_size == self.n_batches and all(map(self._whole, self.paths)):
            return
        self.marks.unlink(missing_ok=True)
        for path in self.paths:
            path.unlink(missing_ok=True)
        check_space(self.features.folder, size * len(self.paths), ELSEWHERE)
        try:
            for path in self.paths:
                np.lib.format.open_memmap(path, "w+", np.float16, self.shape)
                # A memory-mapped file without its disk space kills the process when the disk is full.
                _allocate(path)
            self.marks.write_bytes(bytes(self.n_batches))
        except OSError:
            for path in (*self.paths, self.marks):
                path.unlink(missing_ok=True)
            raise

    def _whole(self, path: Path) -> bool:
        try:
            return np.load(path, mmap_mode="r").shape == self.shape
        except (OSError, ValueError, EOFError):
            return False

    def open(self) -> None:
        self.arrays = [np.load(path, mmap_mode="r+") for path in self.paths]
        self.done = np.memmap(self.marks, np.uint8, "r+")
        self.written: list[int] = []

    def write(self, number: int, values: list[np.ndarray]) -> None:
        """Keep the features of a batch, `[b, D]` for each view. Raises UserError where one is not a finite float16."""
        if not all(np.abs(value).max() <= LARGEST for value in values):
            raise UserError(
                f"{self.features.folder}: a feature of batch {number} is not a finite float16; set train.precision=fp32, or features.cache=false"
            )
        begin = number * self.batch_size
        for array, value in zip(self.arrays, values, strict=True):
            array[begin : begin + len(value)] = value
        self.written.append(number)

    def flush(self) -> None:
        """Bring the features to the disk, then mark their batches as done."""
        for array in self.arrays:
            array.flush()
        self.done[self.written] = 1
        self.done.flush()
        self.written = []

    def finish(self) -> None:
        """Give the whole files their names."""
        del self.arrays, self.done
        for name, path in zip(self.names, self.paths, strict=True):
            os.replace(path, self.features.path(name))
        self.marks.unlink(missing_ok=True)
