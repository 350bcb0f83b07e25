"""What a search found, as arrays, and query by query as plain values for a table, JSON, or a page. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.index import EmbeddingIndex

QUERY_COLUMNS = {"id": "str", "image": "str", "label": "Int8", "wsi": "str", "split": "str", "prob": "float64", "view_hash": "str"}
"""What is known of a query: `id`, or the file of an `image`; the rest where known. `prob` is of class 1."""


@dataclass(frozen=True)
class SearchResult:
    """Neighbours of Q queries. Where fewer than k patches were allowed, the rest of a line has row -1."""

    facts: dict[str, Any]
    """Where it was searched, and how: run, digests, index, backend, k, any_slide."""
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
        """Each query with what was left out and its `neighbours`, in JSON values; unknown is None."""
        for query, left_out, similarity, rows in zip(
            _plain(self.queries.drop(columns="view_hash")), _plain(self.left_out), self.similarity, self.rows, strict=True
        ):
            found = rows >= 0
            neighbours = _plain(self.gallery.iloc[rows[found]][["id", "label", "prob", "wsi", "split"]])
            ranked = zip(range(1, found.sum() + 1), similarity[found], neighbours, strict=True)
            lines = [{"rank": rank, "cosine": round(float(cosine), 6), **neighbour} for rank, cosine, neighbour in ranked]
            yield {**query, "left_out": left_out, "neighbours": lines}

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON values."""
        return {**self.facts, "queries": list(self.each())}


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def count_left_out(gallery: EmbeddingIndex, queries: pd.DataFrame, excluded: Exclusion) -> pd.DataFrame:
    """For each query: whether it is itself in the gallery, and how many others of its slide, and duplicates, were left out."""
    own = gallery.ids.get_indexer(pd.Index(queries["id"]))
    itself = (own >= 0) & queries["id"].notna().to_numpy()
    in_slide = itself & (excluded.slide_codes >= 0) & (gallery.slide_codes[own] == excluded.slide_codes)
    of_slide = np.append(excluded.slide_sizes, 0)[excluded.slide_codes]
    further = np.array([len(rows) for rows in excluded.rows], dtype=np.int64)
    return pd.DataFrame(
        {"itself": itself.astype(np.int64), "own_slide": of_slide - in_slide, "duplicates": further - (itself & ~in_slide)}
    )
