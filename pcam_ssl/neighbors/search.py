"""Nearest neighbours by cosine, exact or approximate, with patches excluded per query, as arrays and as JSON values.

An approximate index may return excluded patches only, so its search is widened until k allowed neighbours are found.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.exact import NOISE, masked_neighbors, matrix_products, outside_ranges, pair_similarities
from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.faiss_index import GPU_NEIGHBORS, cell_count, in_chunks, set_parameters, unit_rows
from pcam_ssl.neighbors.gallery_table import GalleryTable
from pcam_ssl.neighbors.index import EmbeddingIndex

QUERIES = 2**16
SPARE = 32
FURTHER = 16
"""Neighbours retrieved beyond k. The last of them is rarely so close to the k-th that rounding could swap the two."""
MASKED_QUERIES = range(8, 400)
"""With this many queries of several slides the batches are too small for matrix products. A masked search is faster: 1.9 ms a query
instead of 4.0 at 50 queries."""


def search(
    gallery: EmbeddingIndex, queries, k: int, exclude: Exclusion | None = None, query_ids=None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery patches of queries [Q, D] (array or memory map): similarity float32 [Q, k], row int64 [Q, k].

    Similarity is cosine, falling along each line; ties are in order of row. Rows are those of `gallery.table`. With the exact index
    these are the true k nearest, with the lower row where the k-th is tied. A similarity depends only on query and patch: it is the
    same in any batch and on any CPU, and equal for equal vectors. `exclude` comes from `exclusion.leave_out`. Where fewer than k
    patches are allowed (or found, in an approximate index), the rest of the line has row -1 and similarity -inf. On a GPU,
    queries whose k-th neighbour is tied, or that exclude more than `SPARE` further rows, are finished from the vectors in main
    memory, so the result is exact there too.
    Raises UserError for k larger than the gallery, queries of another dimension, and zero or non-finite queries.
    """
    _check(gallery, queries, k)

    def part(start, stop):
        ids = None if query_ids is None else np.asarray(query_ids)[start:stop]
        unit = unit_rows(queries[start:stop], ids)
        excluded = None if exclude is None else exclude.part(range(start, stop))
        return _exact(gallery, unit, k, excluded) if gallery.exact else _approximate(gallery, unit, k, excluded)

    return in_chunks(part, len(queries), QUERIES, gallery.backend.name)


def _check(gallery: EmbeddingIndex, queries, k: int) -> None:
    if not 1 <= k <= len(gallery):
        raise UserError(f"k {k:,} does not fit a gallery of {len(gallery):,} patches; choose k from 1 to {len(gallery):,}")
    if gallery.backend.name == "gpu" and k + SPARE >= GPU_NEIGHBORS:
        raise UserError(f"k {k:,} is more than FAISS selects on a GPU; choose k below {GPU_NEIGHBORS - SPARE:,}, or backend cpu")
    if queries.shape[1] != gallery.notes.dimension:
        raise UserError(
            f"queries of {queries.shape[1]:,} values do not fit a gallery of {gallery.notes.dimension:,}: "
            "embed both with the same network"
        )


def _exact(gallery: EmbeddingIndex, unit: np.ndarray, k: int, exclude: Exclusion | None) -> tuple[np.ndarray, np.ndarray]:
    n = len(gallery)
    ranges = np.zeros((len(unit), 2), dtype=np.int64)
    if exclude is not None and len(gallery.slides):
        ranges[exclude.slide_codes >= 0] = gallery.slide_ranges[exclude.slide_codes[exclude.slide_codes >= 0]]
    most = 0 if exclude is None else max(map(len, exclude.rows), default=0)
    if len(unit) in MASKED_QUERIES and ranges.any() and gallery.backend.name == "cpu":
        return _masked(gallery, unit, k, ranges, exclude)
    width = min(n, k + 1 + max(FURTHER, min(most, SPARE)))
    similarity, place = _nearest_places(gallery, unit, ranges, width)
    rows = np.where(place < 0, -1, gallery.order[place])
    # Patches beyond the last retrieved may tie with it, or be nearer by rounding. Only neighbours above that similarity are certain.
    last = np.where((place[:, -1] >= 0) & (width < n), similarity[:, -1] + NOISE, -np.inf)
    similarity = np.where(place < 0, -np.inf, pair_similarities(gallery.vectors, unit, place)).astype(np.float32, copy=False)
    if most:
        _drop(similarity, rows, exclude)
    _sort(similarity, rows)
    similarity, rows = np.ascontiguousarray(similarity[:, :k]), np.ascontiguousarray(rows[:, :k])
    again = np.flatnonzero((similarity[:, -1] <= last) & (last > -np.inf))
    if len(again):
        again_excluded = None if exclude is None else exclude.part(again)
        similarity[again], rows[again] = _masked(gallery, unit[again], k, ranges[again], again_excluded)
    return similarity, rows


def _masked(gallery: EmbeddingIndex, unit: np.ndarray, k: int, ranges: np.ndarray, exclude: Exclusion | None) -> tuple:
    rows = [np.empty(0, dtype=np.int64)] * len(unit) if exclude is None else exclude.rows
    places = [gallery.places[excluded] for excluded in rows]
    return masked_neighbors(gallery.vectors, gallery.order, unit, k, ranges, places)


def _nearest_places(gallery: EmbeddingIndex, unit: np.ndarray, ranges: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    n = len(gallery)

    def knn(queries, start, stop, k):
        if gallery.backend.name != "gpu":
            return faiss.knn(queries, gallery.vectors[start:stop], k, faiss.METRIC_INNER_PRODUCT)
        if (start, stop) == (0, n):
            return gallery.searched.search(queries, k)
        return faiss.knn_gpu(gallery.resources, queries, gallery.vectors[start:stop], k, metric=faiss.METRIC_INNER_PRODUCT)

    def knn_from(queries, start, stop, k):
        similarity, place = knn(queries, start, stop, k)
        place += np.where(place >= 0, start, 0)
        return similarity, place

    with matrix_products(unit.shape[1]):
        return outside_ranges(knn_from, n, unit, ranges, k)


def _drop(similarity: np.ndarray, rows: np.ndarray, exclude: Exclusion) -> None:
    for query, excluded in enumerate(exclude.rows):
        if len(excluded):
            gone = np.isin(rows[query], excluded)
            similarity[query, gone], rows[query, gone] = -np.inf, -1


def _sort(similarity: np.ndarray, rows: np.ndarray) -> None:
    """Sort each line in place by falling similarity, then by row; sorted lines are skipped."""
    mixed = np.flatnonzero((similarity[:, 1:] >= similarity[:, :-1]).any(axis=1))
    order = np.lexsort((rows[mixed], -similarity[mixed]), axis=1)
    similarity[mixed] = np.take_along_axis(similarity[mixed], order, axis=1)
    rows[mixed] = np.take_along_axis(rows[mixed], order, axis=1)


def _approximate(gallery: EmbeddingIndex, unit: np.ndarray, k: int, exclude: Exclusion | None) -> tuple[np.ndarray, np.ndarray]:
    if exclude is None:
        similarity, rows = gallery.searched.search(unit, k)
        similarity[rows < 0] = -np.inf
    else:
        similarity, rows = allowed_neighbors(gallery, unit, k, exclude)
    _sort(similarity, rows)
    return similarity, rows


WIDER = 4


def allowed_neighbors(gallery: EmbeddingIndex, unit: np.ndarray, k: int, exclude: Exclusion) -> tuple[np.ndarray, np.ndarray]:
    """Similarity and row [Q, k] of the k nearest rows that `exclude` allows, as far as the index finds them.

    Queries [Q, D] with too few neighbours are searched again, four times as wide (neighbours, cells probed, candidates kept), until
    they have k or all allowed ones. Raises UserError where a GPU cannot select that many.
    """
    n, index, cells = len(gallery), gallery.searched, cell_count(gallery.faiss_index)
    found = np.full((len(unit), k), -np.inf, dtype=np.float32), np.full((len(unit), k), -1, dtype=np.int64)
    wanted = np.minimum(k, n - exclude.left_out)
    pending = np.flatnonzero(wanted > 0)
    width, factor = min(n, 2 * k + min(k, max(map(len, exclude.rows), default=0))), 1
    try:
        while len(pending):
            _check_width(gallery, width)
            set_parameters(index, _widened(gallery.notes.parameters, factor, width, n, cells))
            similarity, rows = index.search(unit[pending], width)
            short = [not _keep(found, query, similarity[i], rows[i], gallery, exclude, wanted) for i, query in enumerate(pending)]
            pending = pending[short] if width < n else pending[:0]
            width, factor = min(n, width * WIDER), factor * WIDER
    finally:
        set_parameters(index, gallery.notes.parameters)
    return found


def _keep(found, query: int, similarity, rows, gallery: EmbeddingIndex, exclude: Exclusion, wanted) -> bool:
    """Write the allowed neighbours of one query into `found`. Returns whether there are as many as wanted."""
    allowed = rows >= 0
    if exclude.slide_codes[query] >= 0:
        allowed &= gallery.slide_codes[rows] != exclude.slide_codes[query]
    if len(exclude.rows[query]):
        allowed &= ~np.isin(rows, exclude.rows[query])
    kept = np.flatnonzero(allowed)[: found[0].shape[1]]
    found[0][query, : len(kept)], found[1][query, : len(kept)] = similarity[kept], rows[kept]
    return len(kept) >= wanted[query]


def _widened(parameters: dict[str, int], factor: int, width: int, n: int, cells: int) -> dict[str, int]:
    wider = {name: min(value * factor, n) for name, value in parameters.items()}
    if "nprobe" in wider:
        wider["nprobe"] = cells if width >= n else min(cells, wider["nprobe"])
    if "efSearch" in wider:
        wider["efSearch"] = max(wider["efSearch"], width)
    return wider


def _check_width(gallery: EmbeddingIndex, width: int) -> None:
    if gallery.backend.name == "gpu" and width > GPU_NEIGHBORS:
        raise UserError(
            f"--index {gallery.notes.factory}: more than {GPU_NEIGHBORS:,} of the nearest patches are left out, and FAISS selects "
            "no more on a GPU; take the exact index Flat, or backend cpu"
        )


QUERY_COLUMNS = {"id": "str", "image": "str", "label": "Int8", "wsi": "str", "split": "str", "prob": "float64", "view_hash": "str"}
"""Columns that describe a query: `id`, or the file of an `image`; the rest where known. `prob` is of class 1."""


@dataclass(frozen=True)
class SearchResult:
    """Neighbours of Q queries. Where fewer than k patches were allowed, the rest of a line has row -1."""

    facts: dict[str, Any]
    """The search's run, digests, index, backend, k, and any_slide."""
    queries: pd.DataFrame
    """`QUERY_COLUMNS`."""
    gallery: pd.DataFrame
    """The index's table, by row."""
    similarity: np.ndarray
    """Cosine float32 [Q, k]."""
    rows: np.ndarray
    """int64 [Q, k], rows of `gallery`."""
    left_out: pd.DataFrame
    """int64 columns of length Q: `itself`, `own_slide` (others of its slide), `duplicates`."""

    def __len__(self) -> int:
        return len(self.queries)

    def each(self) -> Iterator[dict[str, Any]]:
        """Yield each query as JSON values, with its `left_out` counts and its `neighbours`; unknown values are None."""
        for query, left_out, similarity, rows in zip(
            _plain(self.queries.drop(columns="view_hash")), _plain(self.left_out), self.similarity, self.rows, strict=True
        ):
            found = rows >= 0
            neighbours = _plain(self.gallery.iloc[rows[found]][["id", "label", "prob", "wsi", "split"]])
            ranked = zip(range(1, found.sum() + 1), similarity[found], neighbours, strict=True)
            lines = [{"rank": rank, "cosine": round(float(cosine), 6), **neighbour} for rank, cosine, neighbour in ranked]
            yield {**query, "left_out": left_out, "neighbours": lines}

    def to_dict(self) -> dict[str, Any]:
        """The whole result as JSON values."""
        return {**self.facts, "queries": list(self.each())}


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def count_left_out(gallery: GalleryTable, queries: pd.DataFrame, excluded: Exclusion) -> pd.DataFrame:
    """Counts of excluded patches per query, int64: `itself` (0 or 1), `own_slide` (others of its slide), `duplicates`."""
    own = gallery.ids.get_indexer(pd.Index(queries["id"]))
    itself = (own >= 0) & queries["id"].notna().to_numpy()
    in_slide = itself & (excluded.slide_codes >= 0) & (gallery.slide_codes[own] == excluded.slide_codes)
    of_slide = np.append(excluded.slide_sizes, 0)[excluded.slide_codes]
    further = np.array([len(rows) for rows in excluded.rows], dtype=np.int64)
    return pd.DataFrame(
        {"itself": itself.astype(np.int64), "own_slide": of_slide - in_slide, "duplicates": further - (itself & ~in_slide)}
    )
