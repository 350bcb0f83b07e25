"""Logits of patches under test-time views, and embeddings of patches, both in batches.

Test-time views are the eight dihedral views (D4), computed exactly, and random views that depend on the patch's id only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.data.batches import EvalStream, load
from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import D4, random_names
from pcam_ssl.data.fixed_views import PLAIN as PLAIN_VIEW
from pcam_ssl.data.pixels import Inputs
from pcam_ssl.data.views import Views, id_key
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.schema import Recipe


@dataclass(frozen=True)
class TestViews:
    """Test-time views of a patch, and the space in which they are averaged (`mean`: "logit" or "prob")."""

    __test__ = False

    d4: bool = True
    random_views: int = 0
    policy: str = "standard"
    strength: float = 1.0
    mean: str = "logit"
    seed: int = 0
    transform: dict[str, Any] | None = None
    """The user's own policy, where `policy` is "file"."""

    @property
    def count(self) -> int:
        return (8 if self.d4 else 1) + self.random_views

    @property
    def names(self) -> tuple[str, ...]:
        """The views' names in a cache of features."""
        fixed = D4 if self.d4 else PLAIN_VIEW
        return fixed + random_names(self.policy, self.strength, self.transform, self.random_views)


PLAIN = TestViews(d4=False)


def dihedral(pixels: torch.Tensor, element: int) -> torch.Tensor:
    """Element 0..7 of D4 on `[B, H, W, C]`; the same elements as `data.views.dihedral`."""
    turned = torch.rot90(pixels, element % 4, (1, 2))
    return turned.flip(2) if element >= 4 else turned


def predict_logits(
    network: Network,
    pixels: Inputs,
    rows: np.ndarray,
    ids,
    *,
    views: TestViews,
    batch_size: int,
    precision: Precision,
    world: World,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of class 1 for the patches `rows` with `ids`, float64 `[N]` each: mean over views, standard deviation over views, plain view.

    The plain view is the first of the views and needs no further pass. Several processes share the patches without padding; each
    gets the whole result. `advance(n)` is called after each batch.
    """
    rows, keys = np.asarray(rows), np.array([id_key(patch_id) for patch_id in ids], np.uint64)
    mine = slice(world.rank, None, world.size)
    logits = np.empty((len(rows[mine]), views.count))
    network.eval()
    with torch.inference_mode(), precision.autocast(world.device):
        if isinstance(pixels, Features):
            for place in _blocks(len(logits)):
                for column, name in enumerate(views.names):
                    features = pixels.of(rows[mine][place], name).to(world.device)
                    logits[place, column] = network.logit(features).cpu().numpy()
                advance(place.stop - place.start)
            return _shared(logits, views, world)
        drawn = Views(views.policy, views.strength, views.transform) if views.random_views else None
        stream = EvalStream(pixels, rows[mine], keys[mine], batch_size, drawn, views.random_views, views.seed)
        for batch in load(stream, range(len(stream)), workers, world.device):
            columns = [network(view)["logit"].float() for view in all_views(batch, views.d4, world.device)]
            logits[batch["place"].numpy()] = torch.stack(columns, 1).cpu().numpy()
            advance(len(batch["place"]))
    return _shared(logits, views, world)


FEATURES_BATCH = 4096


def _blocks(n: int) -> list[slice]:
    return [slice(begin, min(begin + FEATURES_BATCH, n)) for begin in range(0, n, FEATURES_BATCH)]


def _shared(logits: np.ndarray, views: TestViews, world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, spread = _average(logits, views.mean), logits.std(axis=1)
    return tuple(_interleave(world.gather(part)) for part in (mean, spread, logits[:, 0]))


def all_views(batch: dict[str, torch.Tensor], d4: bool, device: torch.device):
    """Yield one view after another, uint8 `[B, H, W, 3]`. Pixels are copied to the device once, as uint8."""
    pixels = batch["pixels"].to(device, non_blocking=True)
    for element in range(8 if d4 else 1):
        yield dihedral(pixels, element)
    if "random" in batch:
        random = batch["random"].to(device, non_blocking=True)
        for view in range(random.shape[1]):
            yield random[:, view]


def _average(logits: np.ndarray, space: str) -> np.ndarray:
    if space == "logit":
        return logits.mean(axis=1)
    prob = expit(logits).mean(axis=1)
    return inverse_sigmoid(np.clip(prob, 1e-15, 1 - 1e-15))


def _interleave(parts: list[np.ndarray]) -> np.ndarray:
    """Undo `rows[rank::size]`."""
    whole = np.empty(sum(len(part) for part in parts))
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def embed_rows(
    network: Network,
    pixels: Inputs,
    rows,
    *,
    batch_size: int,
    precision: Precision,
    world: World,
    workers: int = 0,
    out: np.ndarray | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Embeddings of unit length `[N, D]` of the patches `rows`, without test-time views; written into `out` where given, else float32.

    Several processes share the patches and each gets the whole result; `out` needs a single process. Raises UserError for embeddings
    that are not finite.
    """
    mine = np.asarray(rows)[world.rank :: world.size]
    part = np.empty((len(mine), network.embedding_size), np.float32) if out is None else out
    network.eval()
    with torch.inference_mode(), precision.autocast(world.device):
        for place, patches in _plain_batches(pixels, mine, batch_size, world, workers):
            embedding = network(patches)["embedding"].cpu().numpy()
            if not np.isfinite(embedding).all():
                row = mine[place[~np.isfinite(embedding).all(axis=1)][0]]
                raise UserError(
                    f"the embedding of row {row} is not finite; the network is broken: train it again at a lower optim.lr"
                )
            part[place] = embedding
            advance(len(place))
    if world.size == 1:
        return part
    whole = np.empty((len(rows), network.embedding_size), np.float32)
    for rank, share in enumerate(world.gather(part)):
        whole[rank :: world.size] = share
    return whole


def _plain_batches(pixels: Inputs, rows: np.ndarray, batch_size: int, world: World, workers: int):
    """Places in `rows` `[b]` and their plain views on the device: uint8 `[b, H, W, 3]`, or features float32 `[b, D]`."""
    if isinstance(pixels, Features):
        for block in _blocks(len(rows)):
            yield np.arange(block.start, block.stop), pixels.of(rows[block], PLAIN_VIEW[0]).to(world.device).float()
        return
    stream = EvalStream(pixels, rows, np.zeros(len(rows), np.uint64), batch_size, None, 0, 0)
    for batch in load(stream, range(len(stream)), workers, world.device):
        yield batch["place"].numpy(), batch["pixels"].to(world.device, non_blocking=True)


def test_views(recipe: Recipe) -> TestViews:
    """The test-time views of a recipe."""
    options, views = recipe.predict, recipe.views
    # Random views of a frozen backbone are kept, so all seeds share them.
    seed = 0 if recipe.trains_on_features else recipe.seed
    return TestViews(options.d4, options.random_views, views.policy, views.strength, options.mean, seed, views.transform)
