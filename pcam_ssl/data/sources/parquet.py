"""Hugging Face image parquet: columns `image: {bytes, path}` and `label`, one or more files per split."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_ssl.data.decoding import CHUNK_PATCHES, Chunk
from pcam_ssl.data.images import BadImage
from pcam_ssl.data.sources.csv_table import known, parse_labels
from pcam_ssl.data.sources.listing import SPLITS, Listing, reading, records
from pcam_ssl.errors import UserError

OPTIONAL = ("wsi", "x", "y")
DAMAGED = (pa.ArrowException, OSError)


def parquet_files(path: Path) -> list[Path]:
    """The parquet files at or below `path`, sorted, so 00000-of-00002 comes before 00001-of-00002."""
    return [path] if path.is_file() else sorted(path.rglob("*.parquet"))


def listing(path: Path) -> Listing:
    """The Listing of image parquet files. Raises UserError for files that are truncated or have other columns.

    Ids are the stems of the image paths where all have one and all are different, else split and row: `train-000123`.
    """
    files = parquet_files(path)
    parts = pd.concat([_read_records(file) for file in files], ignore_index=True)
    row = parts.groupby("split").cumcount()
    numbered = parts["split"] + "-" + row.map("{:06d}".format)
    stems = parts["path"].map(lambda name: PurePosixPath(name).stem, na_action="ignore")
    ids = stems if stems.notna().all() and stems.is_unique else numbered
    table = records(
        ids,
        parts["split"],
        parts["label"],
        parts["wsi"],
        parts["x"],
        parts["y"],
        place=parts["file"] + " row " + parts["row"].astype("str"),
    )
    return Listing(str(path), "hugging face parquet", table, partial(_chunks, files))


def _read_records(file: Path) -> pd.DataFrame:
    with reading(file, *DAMAGED), pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow
        image = schema.field("image").type if "image" in schema.names else None
        if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
            raise UserError(
                f"{file}: no column image with bytes (found {', '.join(schema.names)}); give Hugging Face image parquet"
            )
        table = parquet.read(columns=["image.path", *(name for name in ("label", *OPTIONAL) if name in schema.names)])
        rows = parquet.metadata.num_rows
    frame = pd.DataFrame({"file": file.name, "row": range(rows)})
    paths = table.column("image").to_pylist() if "image" in table.column_names else [None] * rows
    frame["path"] = pd.Series([image and image.get("path") for image in paths], dtype="str")
    for name in OPTIONAL:
        frame[name] = table.column(name).to_pylist() if name in table.column_names else None
    frame["wsi"] = known(frame["wsi"])
    frame["label"] = _labels(table, frame["row"].astype("str"), file)
    default = "train" if frame["label"].notna().any() else "test"
    return frame.assign(split=_split_of(file) or default)


def _labels(table: pa.Table, rows: pd.Series, file: Path):
    if "label" not in table.column_names:
        return None
    values = pd.Series(table.column("label").to_pylist(), dtype="object")
    values = values.where(values != -1, None)  # ClassLabel's value for a withheld test label
    return parse_labels(values, "row " + rows, str(file))


def _split_of(file: Path) -> str | None:
    for name in (file.name, file.parent.name):
        word = re.match(r"[a-z]*", name.lower())[0]
        if word in SPLITS:
            return SPLITS[word]
    return None


def _chunks(files: list[Path], scratch: Path) -> Iterator[Chunk]:
    first = 0
    for file in files:
        # Without pre-buffering, row groups of any size are streamed through a small buffer.
        with reading(file, *DAMAGED), pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as table:
            for batch in table.iter_batches(batch_size=CHUNK_PATCHES, columns=["image.bytes"]):
                images = [image["bytes"] if image else None for image in batch.column("image").to_pylist()]
                yield Chunk(first, [BadImage("holds no bytes") if image is None else image for image in images])
                first += len(images)
