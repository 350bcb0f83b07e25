"""The records of a source, listed before its pixels are read, and the chunks in which pixels are read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pcam_ssl.data.decoding import CHUNK_PATCHES, Chunk
from pcam_ssl.errors import UserError, first_line

RECORD_COLUMNS = {"id": "str", "split": "str", "label": "Int8", "wsi": "str", "x": "Int32", "y": "Int32", "place": "str"}
SPLITS = {"train": "train", "training": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid"}
SPLITS |= {"test": "test", "testing": "test"}
NAMED = 10


@dataclass
class Listing:
    """The records of a source; `chunks(scratch folder)` yields their pixels in the same order."""

    source: str
    source_format: str
    records: pd.DataFrame
    chunks: Callable[[Path], Iterator[Chunk]]
    notes: dict = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Problems that --skip-bad skips, one line each."""
    sample_submission: list[str] | None = None
    images: Callable[[list[str]], Sequence[bytes]] | None = None
    """The encoded images at some places, read when they are asked for; None where the pixels can be read in order only."""

    def keep(self, chosen: pd.DataFrame) -> None:
        """Keep the records `chosen`: rows of `records` in their order and with their index, values may differ."""
        rows = chosen.index.to_numpy()
        self.records = chosen.reset_index(drop=True)
        # A part of the test split is no submission.
        self.sample_submission = None
        if self.images is None:
            self.chunks = partial(_only, self.chunks, rows)
        else:
            self.chunks = image_chunks(self.images, self.records["place"].tolist())

    def mismatch(self, key: str, ids: Iterable[str], what: str) -> None:
        """Record `ids` without a counterpart as a problem, and in the notes that go to the manifest with --skip-bad."""
        ids = sorted(ids)
        if ids:
            self.notes[key] = {"count": len(ids), "first": ids[:NAMED]}
            self.problems.append(f"{len(ids):,} {what}: {name_first(ids)}")


def records(ids, split, label=None, wsi=None, x=None, y=None, place=None) -> pd.DataFrame:
    """A records table from columns of length N, single values, or None where unknown. `place` names a record in errors."""
    columns = {"id": ids, "split": split, "label": label, "wsi": wsi, "x": x, "y": y, "place": ids if place is None else place}
    return pd.DataFrame(columns, index=range(len(ids))).astype(RECORD_COLUMNS)


@contextmanager
def reading(path: Path, *kinds: type[Exception]):
    """Turn errors of these kinds, which a library raises for a damaged file, into a UserError that names the file."""
    try:
        yield
    except kinds as error:
        raise UserError(f"{path}: damaged or cut short ({first_line(error)}); download it again") from error


def places_in(ids: pd.Series, among: pd.Series) -> np.ndarray:
    """int64 [N]: the first position of each of `ids` in `among`, -1 where it is absent. A dict would take 200 bytes per id."""
    return pc.index_in(pa.array(ids), value_set=pa.array(among), skip_nulls=True).fill_null(-1).to_numpy().astype(np.int64)


def name_first(names, n: int = 3) -> str:
    """'a, b, c and 7 more'."""
    names = list(names)
    rest = f" and {len(names) - n:,} more" if len(names) > n else ""
    return ", ".join(map(str, names[:n])) + rest


def refuse_repeated(ids: pd.Series, places: pd.Series, source: str) -> None:
    """Raises UserError where two images have the same id, naming both."""
    if pc.count_distinct(pa.array(ids), mode="all").as_py() < len(ids):
        repeated = ids.duplicated(keep=False)
        first = ids[repeated].iloc[0]
        where = name_first(places[ids == first])
        count = ids[repeated].nunique()
        raise UserError(
            f"{source}: {count:,} ids belong to more than one image, first {first} ({where}); give each image its own name"
        )


def image_chunks(images: Callable[[list[str]], Sequence[bytes]], places: list[str]) -> Callable[[Path], Iterator[Chunk]]:
    """`Listing.chunks` for encoded images, which are read where they are decoded."""
    starts = range(0, len(places), CHUNK_PATCHES)
    return lambda scratch: (Chunk(first, images(places[first : first + CHUNK_PATCHES])) for first in starts)


def _only(chunks: Callable[[Path], Iterator[Chunk]], rows: np.ndarray, scratch: Path) -> Iterator[Chunk]:
    """The chunks with the records `rows` alone, ascending; reading ends with the last of them."""
    first = 0
    for chunk in chunks(scratch):
        start, stop = np.searchsorted(rows, (chunk.first, chunk.first + len(chunk.images)))
        wanted = rows[start:stop] - chunk.first
        if len(wanted):
            yield Chunk(first, chunk.images[wanted] if isinstance(chunk.images, np.ndarray) else [chunk.images[n] for n in wanted])
            first += len(wanted)
        if first == len(rows):
            return
