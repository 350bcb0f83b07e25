"""The file that `explore` writes: a row a patch, in the columns that Embedding Atlas shows, row group by row group."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_ssl import __version__
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.files import atomic_write
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.render.thumbnails import jpeg
from pcam_ssl.tables import SCHEMA_VERSION
from pcam_ssl.terminal import progress

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
"""`thumbnail` is a JPEG, as Hugging Face datasets keep images. `class` is the label in words, which Embedding Atlas colours better than
numbers; `call` is right or wrong, of prob 0.5 and above for tumor. `neighbours.ids` are places of rows in the file, as Embedding Atlas
wants them."""


def write_explored(
    path: Path, table: pd.DataFrame, dataset: Dataset, ids: np.ndarray, distances: np.ndarray, notes: dict[str, str]
) -> None:
    """Write the rows of `table` with their pictures and neighbours: `ids` int64 `[N, k]` (-1 for none) and `distances` `[N, k]`."""
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
    made = {
        "thumbnail": [{"bytes": jpeg(np.asarray(dataset.pixels[row])), "path": None} for row in rows.row],
        "neighbours": [{"ids": near[near >= 0], "distances": far[near >= 0]} for near, far in zip(ids, distances, strict=True)],
    }
    known = rows.rename(columns={"wsi": "slide"})
    known["class"] = rows.label.map(dict(enumerate(CLASSES)))
    right = (rows.prob >= 0.5) == (rows.label == 1)
    known["call"] = right.map({True: "right", False: "wrong"}).where(rows.label.notna() & rows.prob.notna())
    columns = [pa.array(made.get(field.name, known.get(field.name)), field.type, from_pandas=True) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)
