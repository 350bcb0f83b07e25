"""`pcam-ssl explore RUN`: patches of a run as a table with pictures, a map and neighbours, which Embedding Atlas opens."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.source import split_rows
from pcam_ssl.errors import UserError
from pcam_ssl.export.explore_table import write_explored
from pcam_ssl.files import check_target
from pcam_ssl.neighbors.embedding_map import embedding_map
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search
from pcam_ssl.pseudo_labels.columns import CLASSES, TRAIL_COLUMNS
from pcam_ssl.pseudo_labels.labeling import TRAIL
from pcam_ssl.runs.embedder import Embedder
from pcam_ssl.runs.networks import Networks, open_networks
from pcam_ssl.runs.run import run_in_use
from pcam_ssl.runs.run_embeddings import embedded, embedder_of, scored_patches
from pcam_ssl.tables import read_table
from pcam_ssl.terminal import say

FILE = "explore.parquet"


def explore(
    path: Path | str,
    out: Path | str | None = None,
    *,
    split: str | None = None,
    sample: int = 20_000,
    method: str = "pca",
    neighbours: int = 10,
    fold: int | None = None,
    round: int | None = None,
    data: Path | str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write `out` (default: RUN/explore.parquet): a row a patch, at most `sample` drawn by the recipe's seed, all with 0.

    Map and neighbours are in the embedding of one network: that of `fold`, else the refit, else the first finished fold; `prob` and `fold`
    are of the networks that never saw the patch. Neighbours are the nearest of other slides among the rows of the file; `decision`
    is what the trail of that network's pseudo-label round says. Raises UserError for a run without networks, a split, fold or
    round that is not there, and a map that cannot be made.
    """
    run = run_in_use(path, round)
    out = run.path / FILE if out is None else Path(out)
    check_target("--out", out, ".parquet")
    networks = open_networks(run.path, data)
    seed = networks.run.load_recipe().seed
    patches = _drawn(split_rows(networks.dataset, networks.dataset.path, split), sample, seed)
    embedder = embedder_of(networks, fold, "explore", device)
    with embedded(networks, embedder, patches, out.parent) as embeddings:
        table = scored_patches(networks, patches)
        table[["x", "y"]] = embedding_map(embeddings, method, seed)
        table = _with_decisions(table, networks, embedder.identity["unit"])
        ids, distances = _nearest(embeddings, table, neighbours)
    write_explored(out, table, networks.dataset, ids, distances, _notes(networks, embedder, method))
    return {"file": str(out), "n": len(table), "unit": embedder.identity["unit"], "map": method, "neighbours": neighbours}


def _drawn(patches: pd.DataFrame, sample: int, seed: int) -> pd.DataFrame:
    """At most `sample` patches in the order of the dataset; all where it is 0."""
    if not sample or len(patches) <= sample:
        return patches
    say(f"explore: {sample:,} of {len(patches):,} patches, drawn at random; --sample 0 takes all")
    return patches.iloc[np.sort(np.random.default_rng(seed).choice(len(patches), sample, replace=False))]


def _with_decisions(table: pd.DataFrame, networks: Networks, unit: str) -> pd.DataFrame:
    """`decision` and `reason` of the trail that the network learned from; absent for patches outside its pool, and without a round."""
    path = networks.run.path / unit / TRAIL
    if not path.exists():
        if networks.info["command"] == "pseudo-label":
            raise UserError(f"{path}: the trail of the round is gone; run `pcam-ssl pseudo-label` again")
        return table.assign(decision=pd.array([None] * len(table), "str"), reason=pd.array([None] * len(table), "str"))
    trail = read_table(path, TRAIL_COLUMNS)[0].set_index("id")
    named = trail.label.map(dict(enumerate(CLASSES)))
    trail["decision"] = trail.decision.where(trail.decision != "added", "added as " + named)
    known = trail.reindex(table.id)
    return table.assign(decision=known.decision.array, reason=known.reason.array)


def _nearest(embeddings: np.ndarray, table: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of other slides, int64 `[N, k]` with -1 where there are fewer, and their distances, 1 - cosine, float32 `[N, k]`."""
    k = min(k, len(table))
    if not k:
        return np.empty((len(table), 0), np.int64), np.empty((len(table), 0), np.float32)
    index = build_index(embeddings, table)
    similarity, rows = search(index, embeddings, k, leave_out(index, table), table.id)
    return rows, 1 - similarity


def _notes(networks: Networks, embedder: Embedder, method: str) -> dict[str, str]:
    return networks.run.table_notes(
        networks.info, unit=embedder.identity["unit"], network_digest=embedder.digest, map=method, dataset=networks.dataset.path
    )
