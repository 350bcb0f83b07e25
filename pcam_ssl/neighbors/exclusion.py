"""Gallery patches that are excluded from a query's neighbours: itself, its own slide, and duplicates where slides are unknown."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from pcam_ssl.data.duplicates import NEAR_BITS, view_bits
from pcam_ssl.neighbors.gallery_table import GalleryTable


@dataclass(frozen=True)
class Exclusion:
    """For each of Q queries, the slide of the gallery and the other rows that are excluded."""

    slide_codes: np.ndarray
    """int64 [Q]: code of the excluded slide in `GalleryTable.slides`, -1 for none."""
    rows: list[np.ndarray]
    """Q arrays of gallery rows, each sorted."""
    slide_sizes: np.ndarray
    """int64 [S]: patches of each slide of the gallery."""

    def __len__(self) -> int:
        return len(self.slide_codes)

    def part(self, queries) -> "Exclusion":
        """The exclusion of some of the queries, by position."""
        return Exclusion(self.slide_codes[list(queries)], [self.rows[query] for query in queries], self.slide_sizes)

    @cached_property
    def left_out(self) -> np.ndarray:
        """int64 [Q]: number of gallery patches excluded for each query."""
        of_slide = np.append(self.slide_sizes, 0)[self.slide_codes]
        return of_slide + np.array([len(rows) for rows in self.rows], dtype=np.int64)


def leave_out(gallery: GalleryTable, queries: pd.DataFrame, any_slide: bool = False, near_bits: int = NEAR_BITS) -> Exclusion:
    """The Exclusion for query patches, described by `queries` (columns `id`, `wsi`, `view_hash`, each optional).

    The patch itself (the same id) is always excluded. Unless `any_slide`, its slide is excluded too. Where the query's slide or any
    slide of the gallery is unknown, patches whose view hash differs by at most `near_bits` bits are excluded: exact and near
    duplicates, also mirrored or rotated.
    """
    n = len(queries)
    column = {name: queries[name] if name in queries else pd.Series([None] * n, dtype="str") for name in ("id", "wsi", "view_hash")}
    own = gallery.ids.get_indexer(pd.Index(column["id"]))
    own[column["id"].isna().to_numpy()] = -1
    codes = np.full(n, -1) if any_slide else gallery.codes_of(column["wsi"])
    unknown = column["wsi"].isna().to_numpy() | (gallery.slide_codes < 0).any()
    repeats = _repeats(gallery, column["view_hash"], unknown & (not any_slide), near_bits)
    rows = []
    for query in range(n):
        further = np.union1d(repeats[query], own[query : query + 1][own[query : query + 1] >= 0])
        rows.append(further[gallery.slide_codes[further] != codes[query]] if codes[query] >= 0 else further)
    return Exclusion(codes, rows, np.bincount(gallery.slide_codes[gallery.slide_codes >= 0], minlength=len(gallery.slides)))


def leave_out_slides(gallery: GalleryTable, slides) -> Exclusion:
    """The Exclusion of the slide named in `slides` [Q] for each query, and of nothing else."""
    return leave_out(gallery, pd.DataFrame({"wsi": pd.array(slides, dtype="str")}))


def _repeats(gallery: GalleryTable, hashes: pd.Series, wanted: np.ndarray, near_bits: int) -> list[np.ndarray]:
    """For each `wanted` query, the gallery rows with a near-duplicate view hash; no rows where a hash is absent."""
    none = np.empty(0, dtype=np.int64)
    known = np.flatnonzero(gallery.table["view_hash"].notna())
    wanted = wanted & hashes.notna().to_numpy()
    if not len(known) or not wanted.any():
        return [none] * len(hashes)
    gallery_bits = view_bits(gallery.table["view_hash"].iloc[known])
    bits = np.zeros(len(hashes), dtype=np.uint64)
    bits[wanted] = view_bits(hashes[wanted])
    return [
        known[np.bitwise_count(gallery_bits ^ bits[query]) <= near_bits] if wanted[query] else none for query in range(len(hashes))
    ]
