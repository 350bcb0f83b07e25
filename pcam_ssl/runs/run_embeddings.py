"""Embeddings of a run's own dataset by one of its networks, on disk for as long as they are needed."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.writer import check_space
from pcam_ssl.runs.run import REFIT
from pcam_ssl.runs.embedder import Embedder, run_embedder
from pcam_ssl.runs.networks import Networks


def embedder_of(networks: Networks, fold: int | None, what: str, device: str) -> Embedder:
    """The network of `fold`, else the refit, else the first finished fold, ready to embed. Raises UserError where it is not there."""
    unit = networks.one(fold, what).name
    return run_embedder(networks.run, None if unit == REFIT else int(unit.removeprefix("fold-")), device)


@contextmanager
def embedded(networks: Networks, embedder: Embedder, patches: pd.DataFrame, beside: Path):
    """Yield embeddings float32 `[N, D]` of `patches`, in a file in the folder `beside` that goes when the block ends.

    So memory does not grow with N. Raises UserError where the disk has no room, or an embedding is not finite.
    """
    beside.mkdir(parents=True, exist_ok=True)
    shape = len(patches), embedder.dimension
    check_space(beside, shape[0] * shape[1] * np.dtype(np.float32).itemsize)
    with tempfile.TemporaryDirectory(prefix=".embedding-", dir=beside) as scratch:
        out = np.lib.format.open_memmap(Path(scratch) / "embeddings.npy", "w+", np.float32, shape)
        yield embedder.embed(Pixels(networks.dataset.path / PIXELS), patches.row.to_numpy(), out=out)


def scored_patches(networks: Networks, patches: pd.DataFrame) -> pd.DataFrame:
    """`patches` with `prob` (calibrated, of class 1) and `fold` of the networks that never saw them; unknown where none scored them.

    `fold` -1 is the mean of all folds, as in test.parquet.
    """
    scored = networks.scored()
    known = scored.reindex(patches.id)
    return patches.assign(prob=known.prob.array, fold=pd.array(known.fold.array, "Int8")).reset_index(drop=True)
