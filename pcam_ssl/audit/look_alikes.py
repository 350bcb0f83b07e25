"""Pairs of patches of different slides or splits with nearly the same embedding, as findings."""

import numpy as np
import pandas as pd

from pcam_ssl.audit.findings import Finding
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.duplicates import duplicate_keys, is_flat, view_bits
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.runs.run import Run

ALIKE = 0.99
NEIGHBOURS = 5
COLUMNS = {"i": "int64", "j": "int64", "cosine": "float64"}


def look_alikes(embeddings: np.ndarray, patches: pd.DataFrame, least: float = ALIKE) -> pd.DataFrame:
    """Pairs of patches in different slides or splits with cosine above `least`: positions `i` < `j` and `cosine`, closest first.

    `embeddings` [N, D] are in the order of `patches` (columns `id`, `wsi`, `split`). Each patch is compared with all, and its five
    nearest outside its slide and split are kept. All patches of unknown slide in a split count as one slide.
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


NAMED, KEPT = 3, 1000
CROWDED_SHARE = 0.05
"""Where more patches than this have a look-alike, the embedding puts each class in one place, and look-alikes are no sign of copies."""


def look_alike_findings(run: Run, dataset: Dataset, near_bits: int, device: str = "auto") -> list[Finding]:
    """Pairs in different slides or splits with nearly the same embedding by the refit network, without those that hashes find already."""
    patches = dataset.patches[~is_flat(dataset.patches)].reset_index(drop=True)
    embeddings = run_embedder(run, device=device).embed(Pixels(dataset.path / PIXELS), patches["row"].to_numpy())
    pairs = look_alikes(embeddings, patches)
    bits, key = view_bits(patches["view_hash"]), duplicate_keys(dataset).loc[patches["row"]].to_numpy()
    found_by_hash = (np.bitwise_count(bits[pairs["i"]] ^ bits[pairs["j"]]) <= near_bits) | (key[pairs["i"]] == key[pairs["j"]])
    pairs = pairs[~found_by_hash]
    if pairs.empty:
        return [Finding("ok", "look-alikes", f"no other two patches of different slides or splits have cosine above {ALIKE}")]
    ids, rows = patches["id"].to_numpy(), patches["row"].to_numpy()
    examples = tuple(f"{ids[pair.i]} ~ {ids[pair.j]} ({pair.cosine:.4f})" for pair in pairs.head(NAMED).itertuples())
    shown = tuple((int(rows[i]), int(rows[j])) for i, j in zip(pairs["i"].head(KEPT), pairs["j"].head(KEPT), strict=True))
    share = len(np.unique(pairs[["i", "j"]])) / len(patches)
    what = f"{len(pairs):,} more pairs of patches in different slides or splits have embeddings with cosine above {ALIKE}"
    if share > CROWDED_SHARE:
        what += f"; they hold {share:.0%} of the patches, so the embedding crowds its classes and this is no sign of copies"
        return [Finding("note", "look-alikes", what, len(pairs), examples, "use a run whose metric loss separates patches", shown)]
    return [
        Finding(
            "suspect", "look-alikes", what, len(pairs), examples, "look at them (--html); the same tissue may be there twice", shown
        )
    ]
