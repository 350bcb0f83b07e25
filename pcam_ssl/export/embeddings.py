"""`pcam-ssl export RUN --parquet FILE`: embeddings of the run's dataset as a table, written row group by row group."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_ssl import __version__
from pcam_ssl.data.dataset import split_rows
from pcam_ssl.files import atomic_write, check_target
from pcam_ssl.runs.embedder import embedded, embedder_of, scored_patches
from pcam_ssl.runs.networks import open_networks
from pcam_ssl.runs.run import run_in_use
from pcam_ssl.tables import SCHEMA_VERSION

ROW_GROUP = 8192
COLUMNS = {
    "id": pa.string(),
    "label": pa.int8(),
    "wsi": pa.string(),
    "split": pa.string(),
    "fold": pa.int8(),
    "prob": pa.float64(),
}


def export_embeddings(
    path: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    fold: int | None = None,
    round: int | None = None,
    data: Path | str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Write `id`, `label`, `wsi`, `split`, `fold`, `prob` and `embedding` (fixed size list of float32, unit length) of a run's dataset.

    All embeddings are of one network: that of `fold`, else the refit, else the first finished fold. `prob` and `fold` are out-of-fold or
    held-out. Rows are streamed, so memory does not grow with the dataset. Returns file, count, dimension and unit. Raises UserError
    for a run without networks, and for an absent split or fold.
    """
    out = Path(out)
    check_target("--parquet", out, ".parquet")
    networks = open_networks(run_in_use(path, round).path, data)
    patches = scored_patches(networks, split_rows(networks.dataset, networks.dataset.path, split))
    embedder = embedder_of(networks, fold, "export", device)
    unit, digest = embedder.identity["unit"], embedder.digest
    notes = networks.run.table_notes(
        networks.info, schema_version=SCHEMA_VERSION, package_version=__version__, unit=unit, network_digest=digest
    )
    fields = [*COLUMNS.items(), ("embedding", pa.list_(pa.float32(), embedder.dimension))]
    schema = pa.schema(fields, {f"pcam_ssl.{key}": value for key, value in notes.items()})
    with (
        embedded(networks, embedder, patches, out.parent) as embeddings,
        atomic_write(out) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        for start in range(0, len(patches), ROW_GROUP):
            part = patches.iloc[start : start + ROW_GROUP]
            flat = pa.array(np.ravel(embeddings[start : start + ROW_GROUP]))
            columns = [pa.array(part[name], kind, from_pandas=True) for name, kind in COLUMNS.items()]
            vectors = pa.FixedSizeListArray.from_arrays(flat, embedder.dimension)
            writer.write_table(pa.Table.from_arrays([*columns, vectors], schema=schema), row_group_size=ROW_GROUP)
    return {"file": str(out), "n": len(patches), "dimension": embedder.dimension, "unit": unit}
