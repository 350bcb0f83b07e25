"""Fill the cache of a frozen backbone's features: each view of each patch goes through the backbone once.

A kill loses at most the batches of a few seconds; the next command goes on. A second command that wants the same features waits.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from filelock import FileLock, Timeout

from pcam_ssl.data.batches import EvalStream, load
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.features import CACHE, FORMAT, Features, features_root, open_folder
from pcam_ssl.data.fixed_views import D4, PLAIN, FixedViews
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.views import id_key
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.models.filling import fill
from pcam_ssl.models.inference import all_views
from pcam_ssl.models.network import Network
from pcam_ssl.terminal import say

BATCH = 128
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
    """Compute the views of a group that are missing."""
    random = group.policy
    keys = np.array([id_key(each) for each in dataset.patches.id], np.uint64) if random else np.zeros(len(dataset), np.uint64)
    drawn, count = (random.drawn, len(group.names)) if random else (None, 0)
    stream = EvalStream(Pixels(dataset.path / PIXELS), dataset.patches.row.to_numpy(), keys, batch_size, drawn, count, 0)

    def compute(numbers: Sequence[int]) -> Iterator[list[np.ndarray]]:
        network.eval()
        with torch.inference_mode(), precision.autocast(world.device):
            for number, batch in zip(numbers, load(stream, numbers, workers, world.device), strict=True):
                views = list(all_views(batch, len(group.names) == len(D4), world.device))
                # The first of all views is the plain one, which random views come after.
                values = [network.features(view).float().cpu().numpy() for view in (views[1:] if random else views)]
                if not all(np.abs(value).max() <= LARGEST for value in values):
                    raise UserError(
                        f"{features.folder}: a feature of batch {number} is not a finite float16; set train.precision=fp32, or features.cache=false"
                    )
                yield values

    views = "1 view" if len(group.names) == 1 else f"{len(group.names)} views"
    fill(
        [features.path(name) for name in group.names],
        (features.n, features.dimension),
        np.float16,
        compute,
        batch_size=batch_size,
        world=world,
        label=f"features, {views}",
        place=features.folder,
        advice=ELSEWHERE,
    )
