"""Logits of patches under test-time views, and embeddings of patches, both in batches.

Test-time views are the eight dihedral views (D4), computed exactly, and random views that depend on the patch's id only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.data.batches import EvalStream, load
from pcam_ssl.data.features import BLOCK, Features
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


def rows_at_once(pixels: Inputs, batch_size: int) -> int:
    """The rows of a batch: `batch_size` patches, or a block of their features."""
    return BLOCK if isinstance(pixels, Features) else batch_size


def logit_batches(
    network: Network,
    pixels: Inputs,
    rows: np.ndarray,
    ids,
    numbers: Sequence[int],
    *,
    views: TestViews,
    batch_size: int,
    precision: Precision,
    device: torch.device,
    workers: int = 0,
) -> Iterator[np.ndarray]:
    """Logits of class 1 for the batches `numbers` of the patches `rows` with `ids`, one after the other: float64 `[b, V]`, a column a view.

    Batch k holds the rows from k x `rows_at_once` on. The plain view is the first column. Of P networks `side_by_side`, `[b, V, P]`.
    """
    network.eval()
    with torch.inference_mode(), precision.autocast(device):
        if isinstance(pixels, Features):
            for number in numbers:
                part = rows[number * BLOCK : (number + 1) * BLOCK]
                columns = [network.logit(pixels.of(part, name).to(device)).cpu().numpy() for name in views.names]
                yield np.stack(columns, 1).astype(np.float64)
            return
        keys, drawn = np.zeros(len(rows), np.uint64), None
        if views.random_views:
            # Only they depend on ids, and hashing millions of those takes seconds in every process.
            keys = np.array([id_key(patch_id) for patch_id in ids], np.uint64)
            drawn = Views(views.policy, views.strength, views.transform)
        stream = EvalStream(pixels, rows, keys, batch_size, drawn, views.random_views, views.seed)
        for batch in load(stream, numbers, workers, device):
            columns = [network(view)["logit"].float() for view in all_views(batch, views.d4, device)]
            yield torch.stack(columns, 1).cpu().numpy().astype(np.float64)


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

    The plain view is the first of the views and needs no further pass. Several processes share the batches; each gets the whole result.
    `advance(n)` is called after each batch. Of P networks `side_by_side`, float64 `[N, P]` each.
    """
    rows = np.asarray(rows)

    def batches(numbers: range) -> Iterator[np.ndarray]:
        options = {"views": views, "batch_size": batch_size, "precision": precision, "device": world.device, "workers": workers}
        for logits in logit_batches(network, pixels, rows, ids, numbers, **options):
            advance(len(logits))
            yield np.stack([*summarised(logits, views), logits[:, 0]], 1)

    each = () if network.outputs == 1 else (network.outputs,)
    whole = _shared(batches, (len(rows), 3, *each), np.float64, rows_at_once(pixels, batch_size), world)
    return whole[:, 0], whole[:, 1], whole[:, 2]


def summarised(logits: np.ndarray, views: TestViews) -> tuple[np.ndarray, np.ndarray]:
    """Mean, in the space of `views`, and standard deviation over views `[b]` of logits `[b, V]`, or `[b, P]` of `[b, V, P]`."""
    return _average(logits, views.mean), logits.std(axis=1)


def _shared(
    batches: Callable[[range], Iterator[np.ndarray]], shape: tuple[int, ...], dtype: type, batch_size: int, world: World
) -> np.ndarray:
    """An array of `shape` `[n, ...]` from what `batches(numbers)` yields. Processes take batches in turn, and each gets the whole."""
    # Not rows in turn: a batch of other patches gives other last digits.
    turn, whole = np.arange(shape[0]) // batch_size % world.size, np.empty(shape, dtype)
    mine = range(world.rank, -(-shape[0] // batch_size), world.size)
    for number, values in zip(mine, batches(mine), strict=True):
        whole[number * batch_size :][: len(values)] = values
    if world.size > 1:
        for rank, values in enumerate(world.gather(whole[turn == world.rank])):
            whole[turn == rank] = values
    return whole


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


def embedding_batches(
    network: Network,
    pixels: Inputs,
    rows: np.ndarray,
    numbers: Sequence[int],
    *,
    batch_size: int,
    precision: Precision,
    device: torch.device,
    workers: int = 0,
) -> Iterator[np.ndarray]:
    """Embeddings of unit length float32 `[b, D]` of the batches `numbers` of the patches `rows`, without test-time views.

    Batch k holds the rows from k x `rows_at_once` on. Raises UserError for embeddings that are not finite.
    """
    network.eval()
    with torch.inference_mode(), precision.autocast(device):
        for number, patches in zip(numbers, _plain_batches(pixels, rows, numbers, batch_size, device, workers), strict=True):
            embedding = network(patches)["embedding"].cpu().numpy()
            if not (finite := np.isfinite(embedding).all(axis=1)).all():
                row = rows[number * rows_at_once(pixels, batch_size) + np.flatnonzero(~finite)[0]]
                raise UserError(
                    f"the embedding of row {row} is not finite; the network is broken: train it again at a lower optim.lr"
                )
            yield embedding


def _plain_batches(
    pixels: Inputs, rows: np.ndarray, numbers: Sequence[int], batch_size: int, device: torch.device, workers: int
) -> Iterator[torch.Tensor]:
    """Plain views of the batches `numbers` on the device: uint8 `[b, H, W, 3]`, or features float32 `[b, D]`."""
    if isinstance(pixels, Features):
        for number in numbers:
            part = rows[number * BLOCK : (number + 1) * BLOCK]
            yield pixels.of(part, PLAIN_VIEW[0]).to(device).float()
        return
    stream = EvalStream(pixels, rows, np.zeros(len(rows), np.uint64), batch_size, None, 0, 0)
    for batch in load(stream, numbers, workers, device):
        yield batch["pixels"].to(device, non_blocking=True)


def embed_rows(
    network: Network,
    pixels: Inputs,
    rows,
    *,
    batch_size: int,
    precision: Precision,
    world: World,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Embeddings of unit length float32 `[N, D]` of the patches `rows`, without test-time views.

    Several processes share the batches and each gets the whole result. Raises UserError for embeddings that are not finite.
    """
    rows = np.asarray(rows)

    def batches(numbers: range) -> Iterator[np.ndarray]:
        options = {"batch_size": batch_size, "precision": precision, "device": world.device, "workers": workers}
        for embedding in embedding_batches(network, pixels, rows, numbers, **options):
            advance(len(embedding))
            yield embedding

    return _shared(batches, (len(rows), network.embedding_size), np.float32, rows_at_once(pixels, batch_size), world)


def test_views(recipe: Recipe) -> TestViews:
    """The test-time views of a recipe."""
    options, views = recipe.predict, recipe.views
    # Random views of a frozen backbone are kept, so all seeds share them.
    seed = 0 if recipe.trains_on_features else recipe.seed
    return TestViews(options.d4, options.random_views, views.policy, views.strength, options.mean, seed, views.transform)
