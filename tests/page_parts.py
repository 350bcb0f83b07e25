"""A search result written by hand."""

import numpy as np
import pandas as pd

from pcam_ssl.neighbors.index import COLUMNS
from pcam_ssl.neighbors.search import QUERY_COLUMNS, SearchResult
from pcam_ssl.tables import conform

LONG = "0240506a9ba08dc95425ed8df19d63bbd5489187"


def frame(columns: dict, rows: list[dict]) -> pd.DataFrame:
    return conform(pd.DataFrame(rows).reindex(columns=list(columns)), columns)


def search_result(k: int = 3, slide: str = "slide-b", image: str = "patch.png", **facts) -> SearchResult:
    """Two queries: a known patch with three neighbours, and an image with one; `k` were asked for."""
    queries = [
        {"id": LONG, "label": 0, "wsi": "slide-a", "split": "train", "prob": 0.25},
        {"image": image},
    ]
    gallery = [
        {"id": "n0", "label": 1, "wsi": slide, "split": "train", "prob": 0.9},
        {"id": LONG[::-1], "label": 0, "wsi": "slide-c", "split": "train", "prob": 0.125},
        {"id": "n2", "split": "test"},
    ]
    rows = np.full((2, k), -1)
    rows[0, : min(k, 3)], rows[1, 0] = [0, 1, 2][:k], 2
    similarity = np.where(rows >= 0, 0.99 - 0.01 * np.arange(k), -np.inf).astype(np.float32)
    left_out = pd.DataFrame({"itself": [1, 0], "own_slide": [29, 0], "duplicates": [0, 2]})
    known = {
        "run": "runs/m",
        "network_digest": "e" * 64,
        "dataset": "data/set",
        "dataset_digest": "d" * 64,
        "gallery": 3,
        "index": {"factory": "Flat", "parameters": {}, "exact": True, "created": "2025-01-02T03:04:05+00:00"},
        "backend": {"name": "cpu", "reason": "FAISS sees no GPU"},
        "k": k,
        "any_slide": False,
    }
    return SearchResult(known | facts, frame(QUERY_COLUMNS, queries), frame(COLUMNS, gallery), similarity, rows, left_out)


def patches(result: SearchResult, size_px: int = 96) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Pixels of one grey each: queries 10 and 11, neighbours 100 and on."""
    queries = [np.full((size_px, size_px, 3), 10 + n, np.uint8) for n in range(len(result))]
    found = [[np.full((size_px, size_px, 3), 100 + row, np.uint8) for row in rows if row >= 0] for rows in result.rows]
    return queries, found
