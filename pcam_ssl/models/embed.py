"""Embeddings of patches, streamed: memory does not grow with their number where `out` lies on disk."""

from collections.abc import Callable

import numpy as np
import torch

from pcam_ssl.data.batches import EvalStream, Pixels, load
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.models.network import Network


def embed_rows(
    network: Network,
    pixels: Pixels,
    rows,
    *,
    batch_size: int,
    precision: Precision,
    world: World,
    workers: int = 0,
    out: np.ndarray | None = None,
    advance: Callable[[int], None] = lambda n: None,
) -> np.ndarray:
    """Embeddings of unit length `[N, D]` of one plain view of the patches `rows`, written into `out` where given (else float32 in memory).

    Several processes share the patches; each gets the whole, so `out` is for one process. Raises UserError for embeddings that
    are not finite.
    """
    mine = np.asarray(rows)[world.rank :: world.size]
    stream = EvalStream(pixels, mine, np.zeros(len(mine), np.uint64), batch_size, None, 0, 0)
    part = np.empty((len(mine), network.embedding_size), np.float32) if out is None else out
    network.eval()
    with torch.inference_mode(), precision.autocast(world.device):
        for batch in load(stream, range(len(stream)), workers, world.device):
            place = batch["place"].numpy()
            embedding = network(batch["pixels"].to(world.device, non_blocking=True))["embedding"].cpu().numpy()
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
