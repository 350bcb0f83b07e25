"""The first patches of each split of PatchCamelyon, without the other 7 GB: row groups of parquet files, read in ranges.

The parquet files are those of the Hugging Face dataset 1aurent/PatchCamelyon. The HDF5 files of Zenodo cannot be read in part: they are
gzip streams, and HDF5 refuses a file that is cut short.
"""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pcam_ssl.data.connection import Lost, RangedFile, check_address
from pcam_ssl.data.download import writing_in
from pcam_ssl.data.writer import check_space
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write
from pcam_ssl.terminal import progress, say

URL = "https://huggingface.co/datasets/1aurent/PatchCamelyon/resolve/refs%2Fconvert%2Fparquet/default"
SPLITS = {"train": (13, 262_144), "valid": (2, 32_768), "test": (2, 32_768)}
"""Files and patches of each split. The files are SPLIT/0000.parquet, SPLIT/0001.parquet, ..."""
SHARD_PATCHES = 500
"""Patches of a written file. An interrupted sample keeps its whole files."""
BATCH_PATCHES = 50
BUFFER_BYTES = 2**17
PATCH_BYTES = 24_000
"""A patch as PNG, about; to check the room on the disk."""
COLUMNS = ["image", "label"]
ORIGIN = b"pcam-ssl sample of"
"""Key of the parquet metadata that holds the address a shard came from, so that other files are not taken for shards."""
NAME = re.compile(r"(train|valid|test)-\d{5}\.parquet")


def download_sample(
    folder: Path | str,
    patches: int,
    url: str = URL,
    splits: dict[str, tuple[int, int]] = SPLITS,
    pause_s: float = 2.0,
) -> list[Path]:
    """Write the first `patches` patches of each split to parquet files in `folder`, which `import_source` reads; returns their paths.

    A smaller split is taken whole. Files of an interrupted or smaller sample are kept and continued. `splits` holds the number of
    files and patches of each split at `url`. Raises UserError where the number cannot be, `folder` holds something else, the server
    cannot be reached, ignores ranges or sends something else, or the disk is full.
    """
    folder = Path(folder)
    most = max(rows for _, rows in splits.values())
    if isinstance(patches, bool) or not isinstance(patches, int) or patches < 1:
        raise UserError(f"--sample {patches}: not a number of patches; give 1 or more")
    if patches > most:
        raise UserError(f"--sample {patches}: PCam has {most:,} patches at most in a split; leave --sample out to download all")
    check_address(url)
    url = url.rstrip("/")
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_others(folder)
        plans = [_planned(folder, split, min(patches, rows), url) for split, (_, rows) in splits.items()]
        check_space(folder, PATCH_BYTES * sum(rows for shards in plans for path, rows in shards if not path.exists()))
        for split, shards in zip(splits, plans, strict=True):
            if patches > splits[split][1]:
                say(f"{split}: has {splits[split][1]:,} patches, fewer than --sample {patches}; all are taken")
            _fetch(split, shards, url, splits[split][0], pause_s)
    return [path for shards in plans for path, _ in shards]


def _refuse_others(folder: Path) -> None:
    """Raises UserError where `folder` holds other files, which the import might read in place of the sample."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and not NAME.fullmatch(path.name):
            raise UserError(f"{folder}: holds {path.name}, which is not of a sample; name a new folder")


def _planned(folder: Path, split: str, patches: int, url: str) -> list[tuple[Path, int]]:
    """The shards of a split and their number of patches. Raises UserError where `folder` holds more, or files from elsewhere."""
    starts = range(0, patches, SHARD_PATCHES)
    shards = [(folder / f"{split}-{n:05d}.parquet", min(SHARD_PATCHES, patches - start)) for n, start in enumerate(starts)]
    rows = dict(shards)
    for path in sorted(folder.glob(f"{split}-*.parquet")):
        if _patches_in(path, url) > rows.get(path, 0):
            raise UserError(f"{folder}: holds more than {patches:,} patches of {split}; name a new folder, or a larger --sample")
    return shards


def _patches_in(shard: Path, url: str) -> int:
    """The number of patches in a shard. Raises UserError where it is damaged or from another address."""
    try:
        footer = pq.read_metadata(shard)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard}: damaged or cut short ({first_line(error)}); delete it and run this again") from None
    if (footer.metadata or {}).get(ORIGIN) != url.encode():
        raise UserError(f"{shard}: is not of a sample of {url}; name a new folder")
    return footer.num_rows


def _fetch(split: str, shards: list[tuple[Path, int]], url: str, files: int, pause_s: float) -> None:
    """Write the shards of a split that are absent or smaller than wanted."""
    kept = list(takewhile(lambda shard: shard[0].exists() and _patches_in(shard[0], url) == shard[1], shards))
    done, total = sum(rows for _, rows in kept), sum(rows for _, rows in shards)
    if done == total:
        say(f"{split}: {total:,} patches, already present")
        return
    source = _Patches([f"{url}/{split}/{number:04d}.parquet" for number in range(files)], pause_s)
    missing = shards[len(kept) :]
    with progress(split, total) as advance, closing(source.batches(done)) as batches:
        advance(done)
        tables = _in_shards(batches, [rows for _, rows in missing], advance)
        for path, rows in missing:
            try:
                table = next(tables)
            except Lost as lost:
                raise UserError(
                    f"{source.url}: {lost}; {done:,} patches of {split} are kept: run the same command to continue"
                ) from None
            if len(table) < rows:
                raise UserError(f"{url}: {split} has {done + len(table):,} patches, not {total:,}; name another with --url")
            with atomic_write(path) as temporary:
                pq.write_table(table.replace_schema_metadata({**(table.schema.metadata or {}), ORIGIN: url}), temporary)
            done += rows
    say(f"{split}: {total:,} patches, {source.transferred / 1e6:,.1f} MB transferred")


class _Patches:
    """The patches of a split in order, read from its files one after the other; `url` is the file being read."""

    def __init__(self, urls: list[str], pause_s: float):
        self._urls = urls
        self.url = urls[0]
        self.transferred = 0
        self._pause_s = pause_s

    def batches(self, first: int) -> Iterator[pa.Table]:
        """Yield tables with the columns image and label, from patch `first` on. Raises Lost, and UserError for damaged files."""
        for url in self._urls:
            self.url = url
            with RangedFile(url, self._pause_s) as file:
                try:
                    # Without pre-buffering, row groups of any size are read only as far as patches are taken.
                    with self._reading(), pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER_BYTES) as parquet:
                        if first < parquet.metadata.num_rows:
                            yield from _from_row(parquet, first)
                        first = max(0, first - parquet.metadata.num_rows)
                finally:
                    self.transferred += file.transferred

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{self.url}: damaged or cut short ({first_line(error)}); name another with --url") from error


def _from_row(parquet: pq.ParquetFile, first: int) -> Iterator[pa.Table]:
    """Yield the patches of a file from row `first` on in small tables, and read only the row groups that hold them."""
    schema = parquet.schema_arrow
    image = schema.field("image").type if "image" in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise pa.ArrowInvalid("no column image with bytes")
    if "label" not in schema.names:
        raise pa.ArrowInvalid("no column label")
    group = 0
    while first >= parquet.metadata.row_group(group).num_rows:
        first -= parquet.metadata.row_group(group).num_rows
        group += 1
    groups = range(group, parquet.num_row_groups)
    for batch in parquet.iter_batches(BATCH_PATCHES, row_groups=groups, columns=COLUMNS, use_threads=False):
        skipped = min(first, len(batch))
        first -= skipped
        yield pa.Table.from_batches([batch.slice(skipped)])


def _in_shards(batches: Iterator[pa.Table], sizes: list[int], advance) -> Iterator[pa.Table]:
    """Yield tables of `sizes` rows each; a table is shorter where the batches end."""
    held: list[pa.Table] = []
    missing = sum(sizes)
    for rows in sizes:
        while sum(map(len, held)) < rows and (batch := next(batches, None)) is not None:
            held.append(batch)
            advance(min(len(batch), missing))
            missing -= len(batch)
        table = pa.concat_tables(held) if held else pa.table({})
        yield table[:rows]
        held = [table[rows:]]
