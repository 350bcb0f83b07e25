"""`pcam-ssl explore RUN`: a table of patches with thumbnails, map and neighbours, shown in Embedding Atlas on this machine."""

import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_ssl import __version__
from pcam_ssl.data.dataset import Dataset, split_rows
from pcam_ssl.errors import UserError
from pcam_ssl.files import atomic_write, check_target
from pcam_ssl.neighbors.embedding_map import embedding_map
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search
from pcam_ssl.render.html import encoded
from pcam_ssl.runs.embedder import Embedder, embedded, embedder_of, scored_patches
from pcam_ssl.runs.networks import Networks, open_networks
from pcam_ssl.runs.run import DECISIONS, run_in_use
from pcam_ssl.tables import CLASSES, DECISION_COLUMNS, SCHEMA_VERSION, read_table
from pcam_ssl.terminal import progress, say

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
    """Write `out` (default: RUN/explore.parquet) with one row per patch and return what was written, as JSON values.

    At most `sample` patches are drawn by the recipe's seed; 0 takes all. Map and neighbours use the embedding of one network: that of
    `fold`, else the refit, else the first finished fold. `prob` and `fold` are out-of-fold or held-out. Neighbours are the nearest
    patches of other slides among the rows of the file. `decision` is that of the network's pseudo-label round. Raises UserError for a
    run without networks, an absent split, fold or round, and a map that cannot be made.
    """
    run = run_in_use(path, round)
    out = run.path / FILE if out is None else Path(out)
    check_target("--out", out, ".parquet")
    networks = open_networks(run.path, data)
    seed = networks.run.recipe.seed
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
    """At most `sample` patches, in the order of the dataset; all patches where `sample` is 0."""
    if not sample or len(patches) <= sample:
        return patches
    say(f"explore: {sample:,} of {len(patches):,} patches, drawn at random; --sample 0 takes all")
    return patches.iloc[np.sort(np.random.default_rng(seed).choice(len(patches), sample, replace=False))]


def _with_decisions(table: pd.DataFrame, networks: Networks, unit: str) -> pd.DataFrame:
    """The table with `decision` and `reason` of the network's pseudo-label round; both missing outside its pool, and without a round."""
    path = networks.run.path / unit / DECISIONS
    if not path.exists():
        if networks.info["command"] == "pseudo-label":
            raise UserError(f"{path}: the decisions of the round are absent; run `pcam-ssl pseudo-label` again")
        return table.assign(decision=pd.array([None] * len(table), "str"), reason=pd.array([None] * len(table), "str"))
    decisions = read_table(path, DECISION_COLUMNS)[0].set_index("id")
    named = decisions.label.map(dict(enumerate(CLASSES)))
    decisions["decision"] = decisions.decision.where(decisions.decision != "added", "added as " + named)
    decisions = decisions.reindex(table.id)
    return table.assign(decision=decisions.decision.array, reason=decisions.reason.array)


def _nearest(embeddings: np.ndarray, table: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of other slides, int64 `[N, k]` (-1 where there are fewer), and their distances 1 - cosine, float32 `[N, k]`."""
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


ROW_GROUP = 2048
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "thumbnail": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "x": pa.float32(),
        "y": pa.float32(),
        "label": pa.int8(),
        "class": pa.string(),
        "prob": pa.float64(),
        "call": pa.string(),
        "fold": pa.int8(),
        "slide": pa.string(),
        "split": pa.string(),
        "decision": pa.string(),
        "reason": pa.string(),
        "neighbours": pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.float32())}),
    }
)
"""`thumbnail` is a JPEG in the form of Hugging Face datasets. `class` is the label in words, which Embedding Atlas colours better than
numbers. `call` is right or wrong at prob 0.5. `neighbours.ids` are row numbers of the file, as Embedding Atlas expects."""


def write_explored(
    path: Path, table: pd.DataFrame, dataset: Dataset, ids: np.ndarray, distances: np.ndarray, notes: dict[str, str]
) -> None:
    """Write the rows of `table` with thumbnails and neighbours: `ids` int64 `[N, k]` (-1 for none) and `distances` `[N, k]`."""
    metadata = {"schema_version": SCHEMA_VERSION, "package_version": __version__, **notes}
    schema = SCHEMA.with_metadata({f"pcam_ssl.{key}": value for key, value in metadata.items()})
    with (
        atomic_write(path) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
        progress("pictures", len(table)) as advance,
    ):
        for start in range(0, len(table), ROW_GROUP):
            part = slice(start, start + ROW_GROUP)
            writer.write_table(_group(schema, table.iloc[part], dataset, ids[part], distances[part]), row_group_size=ROW_GROUP)
            advance(len(table.iloc[part]))


def _group(schema: pa.Schema, rows: pd.DataFrame, dataset: Dataset, ids: np.ndarray, distances: np.ndarray) -> pa.Table:
    computed = {
        "thumbnail": [{"bytes": encoded(np.asarray(dataset.pixels[row])), "path": None} for row in rows.row],
        "neighbours": [{"ids": near[near >= 0], "distances": far[near >= 0]} for near, far in zip(ids, distances, strict=True)],
    }
    frame = rows.rename(columns={"wsi": "slide"})
    frame["class"] = rows.label.map(dict(enumerate(CLASSES)))
    right = (rows.prob >= 0.5) == (rows.label == 1)
    frame["call"] = right.map({True: "right", False: "wrong"}).where(rows.label.notna() & rows.prob.notna())
    columns = [pa.array(computed.get(field.name, frame.get(field.name)), field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


LOOPBACK = "127.0.0.1"
PACKAGE = "embedding_atlas"


def atlas_options(file: Path | str, port: int) -> list[str]:
    """Command-line arguments of `embedding-atlas`: the file, its columns, and a host that accepts this machine only."""
    columns = ["--x", "x", "--y", "y", "--image", "thumbnail", "--neighbors", "neighbours"]
    return [str(file), *columns, "--host", LOOPBACK, "--port", str(port)]


def serve_atlas(file: Path | str, port: int) -> None:
    """Serve `file` in Embedding Atlas until Ctrl-C. Raises UserError where it is not installed or stops with an error."""
    if find_spec(PACKAGE) is None:
        raise UserError(f"--serve: {file} is written, but Embedding Atlas is not installed; pip install 'pcam-ssl[explore]'")
    try:
        done = run([sys.executable, "-m", f"{PACKAGE}.cli", *atlas_options(file, port)])
    except KeyboardInterrupt:
        return
    if done.returncode:
        raise UserError(
            f"--serve: {file} is written, but Embedding Atlas stopped with code {done.returncode}; see its messages above"
        )
