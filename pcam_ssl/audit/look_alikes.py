"""Patches of different slides or splits whose embeddings all but coincide. No torch."""

import numpy as np
import pandas as pd

from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search

ALIKE = 0.99
NEIGHBOURS = 5
COLUMNS = {"i": "int64", "j": "int64", "cosine": "float64"}


def look_alikes(embeddings: np.ndarray, patches: pd.DataFrame, least: float = ALIKE) -> pd.DataFrame:
    """Pairs of patches in different slides or splits with cosine above `least`: places `i` < `j` and `cosine`, closest first.

    `embeddings` [N, D] stand in the order of `patches` (columns `id`, `wsi`, `split`). Each patch is compared with all, and its five
    nearest outside its slide and split are looked at. Patches of unknown slide count as one slide with the rest of their split.
    """
    place = patches["split"].astype("str") + " " + patches["wsi"].astype("str").fillna("")
    table = pd.DataFrame({"id": patches["id"].to_numpy(), "wsi": place.to_numpy()})
    gallery = build_index(embeddings, table)
    cosine, rows = search(gallery, embeddings, min(NEIGHBOURS, len(gallery)), leave_out(gallery, table))
    query, rank = np.nonzero((rows >= 0) & (cosine > least))
    other = rows[query, rank]
    pairs = pd.DataFrame({"i": np.minimum(query, other), "j": np.maximum(query, other), "cosine": cosine[query, rank]}).astype(
        COLUMNS
    )
    pairs = pairs.sort_values(["cosine", "i", "j"], ascending=[False, True, True]).drop_duplicates(["i", "j"])
    return pairs.reset_index(drop=True)
