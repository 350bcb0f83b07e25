"""PatchCamelyon as published (Veeling et al. 2018): HDF5 files, gzipped or not, and one meta csv per split."""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from pcam_ssl.data.decoding import CHUNK_PATCHES, Chunk
from pcam_ssl.data.download import MD5
from pcam_ssl.data.sources.csv_table import known, read_csv
from pcam_ssl.data.sources.listing import Listing, name_first, reading, records
from pcam_ssl.data.writer import check_space
from pcam_ssl.errors import UserError
from pcam_ssl.terminal import say, warn

NAME = re.compile(r"(?P<stem>.*_split_(?P<split>train|valid|test))_x\.h5(\.gz)?")
MISORDERED_SHARE = 0.05
"""Where a larger share of labels differs from the meta csv, its rows are in another order. In random order half would differ."""
COPY_BYTES = 2**20
BAND_BYTES = 2**27


def looks_like(folder: Path) -> bool:
    """Whether the folder has the x file of a split."""
    return any(NAME.fullmatch(path.name) for path in folder.iterdir())


def listing(folder: Path, verify: bool) -> Listing:
    """The Listing of the folder, with ids `split-000123` in file order. Raises UserError for damaged files, and with `verify` for a wrong MD5."""
    found = Listing(str(folder), "pcam hdf5", None, None)
    tables, pixels = [], []
    for split in ("train", "valid", "test"):
        matches = [match for path in sorted(folder.iterdir()) if (match := NAME.fullmatch(path.name)) and match["split"] == split]
        if matches:
            tables.append(_records(folder, matches[0]["stem"], split, verify, found))
            pixels.append((folder / matches[0].string, len(tables[-1])))
    found.records = pd.concat(tables, ignore_index=True)
    found.chunks = partial(_chunks, pixels, verify, found.notes)
    return found


def _records(folder: Path, stem: str, split: str, verify: bool, found: Listing) -> pd.DataFrame:
    y = next((path for path in (folder / f"{stem}_y.h5", folder / f"{stem}_y.h5.gz") if path.is_file()), None)
    if y is None:
        raise UserError(f"{folder / stem}_y.h5: absent, also as .gz; put the labels of the {split} split beside its x file")
    labels = _read_labels(y, verify, found.notes)
    ids = [f"{split}-{row:06d}" for row in range(len(labels))]
    table = records(ids, split, labels, place=[f"{stem}_x.h5 row {row}" for row in range(len(labels))])
    meta = folder / f"{stem}_meta.csv"
    return _join_meta(table, meta, found.notes) if meta.is_file() else table


def _read_labels(path: Path, verify: bool, notes: dict) -> np.ndarray:
    buffer = io.BytesIO()
    _copy(path, buffer, verify, notes)
    with reading(path, OSError), h5py.File(buffer, "r") as file:
        values = _dataset(file, "y", path)[:].reshape(-1)
    if not np.isin(values, (0, 1)).all():
        shown = name_first(np.unique(values[~np.isin(values, (0, 1))]))
        raise UserError(f"{path}: labels are neither 0 nor 1: {shown}; they must be of class tumor")
    return values.astype(np.int8)


def _join_meta(table: pd.DataFrame, path: Path, notes: dict) -> pd.DataFrame:
    """The table with slides and coordinates. The published csv has no ids and is in the order of the HDF5 files, so the order is checked."""
    meta = read_csv(path.read_bytes(), str(path), ["wsi"])
    if path.name in MD5:
        official = hashlib.md5(path.read_bytes()).hexdigest() == MD5[path.name]
        notes.setdefault("md5", {})[path.name] = "verified" if official else "not the published file"
    if len(meta) != len(table):
        raise UserError(
            f"{path}: {len(meta):,} rows for {len(table):,} patches; download it again, or remove it to go without slides"
        )
    if "center_tumor_patch" in meta:
        wrong = int((meta["center_tumor_patch"].str.lower().isin(("1", "true", "1.0")) != (table["label"] == 1)).sum())
        if wrong > MISORDERED_SHARE * len(table):
            message = f"{wrong:,} of {len(table):,} rows have another label than the y file, so the order differs"
            raise UserError(f"{path}: {message}; download it again, or remove it to go without slides")
        if wrong:
            notes["meta_labels_differ"] = notes.get("meta_labels_differ", 0) + wrong
            warn(f"{path}: {wrong:,} of {len(table):,} rows have another label than the y file; the labels of the y file are used")
    for column, name in (("x", "coord_x"), ("y", "coord_y")):
        if name in meta:
            table[column] = pd.to_numeric(meta[name], errors="coerce").round().astype("Int32")
    table["wsi"] = known(meta["wsi"]).astype("str")
    return table


def _chunks(files: list[tuple[Path, int]], verify: bool, notes: dict, scratch: Path) -> Iterator[Chunk]:
    first = 0
    for path, rows in files:
        unpacked = _unpack(path, scratch, verify, notes) if path.suffix == ".gz" else path
        with reading(path, OSError), h5py.File(unpacked, "r") as file:
            pixels = _dataset(file, "x", path)
            if len(pixels) != rows:
                raise UserError(f"{path}: {len(pixels):,} patches, but {rows:,} labels; download both again")
            if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.shape[1] != pixels.shape[2]:
                raise UserError(f"{path}: x is {pixels.dtype} {list(pixels.shape)}, not uint8 [N, H, H, 3]; give RGB patches")
            yield from _bands(pixels, first)
        first += rows
        if unpacked != path:
            unpacked.unlink()


def _bands(pixels: h5py.Dataset, first: int) -> Iterator[Chunk]:
    """Yield the pixels in chunks, read in bands as high as the HDF5 chunks, so that no HDF5 chunk is read more than once."""
    height = pixels.chunks[0] if pixels.chunks else CHUNK_PATCHES
    height = max(CHUNK_PATCHES, min(height, BAND_BYTES // int(np.prod(pixels.shape[1:]))))
    for start in range(0, len(pixels), height):
        band = pixels[start : start + height]
        for row in range(0, len(band), CHUNK_PATCHES):
            yield Chunk(first + start + row, band[row : row + CHUNK_PATCHES])


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    if name not in file:
        raise UserError(f"{path}: no dataset {name} (found {', '.join(file)}); give a PatchCamelyon file")
    return file[name]


def _unpack(path: Path, scratch: Path, verify: bool, notes: dict) -> Path:
    """Unpack a gzipped file, one split at a time, beside the new dataset, because HDF5 needs random access. Returns its path."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4))
        size = int.from_bytes(file.read(4), "little")  # modulo 4 GiB; the true size is not much below that of the gzipped file
    while size < path.stat().st_size * 0.9:
        size += 2**32
    check_space(scratch.parent, 2 * size)
    say(f"{path.name}: unpacking" + (" and checking its MD5" if verify and path.name in MD5 else ""))
    with open(scratch / path.stem, "wb") as out:
        _copy(path, out, verify, notes)
    return scratch / path.stem


def _copy(path: Path, out, verify: bool, notes: dict) -> None:
    """Copy the content of a file in constant memory. A gzipped file is unzipped, and its MD5 checked, in the same pass."""
    digest = hashlib.md5()
    with open(path, "rb") as raw:
        packed = path.suffix == ".gz"
        try:
            with gzip.GzipFile(fileobj=_Tee(raw, digest)) if packed else raw as content:
                while block := content.read(COPY_BYTES):
                    out.write(block)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise UserError(f"{path}: cut short or damaged gzip; download it again") from None
    if packed and path.name in MD5:
        official = digest.hexdigest() == MD5[path.name]
        if verify and not official:
            wanted = f"MD5 is {digest.hexdigest()}, that of the published file is {MD5[path.name]}"
            raise UserError(f"{path}: {wanted}; download it again, or add --no-verify if it is not meant to be that file")
        notes.setdefault("md5", {})[path.name] = "verified" if official else "not the published file"


class _Tee(io.RawIOBase):
    """A readable stream that adds everything read to a digest."""

    def __init__(self, raw, digest):
        self._raw, self._digest = raw, digest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._raw.read(size)
        self._digest.update(block)
        return block
