"""What embeddings lie together by: class, or slide. The numbers beside a map, taken in the whole space and not on the map. No torch."""

from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score

NEAREST = 10


def likeness(embeddings, labels, slides=None, k: int = NEAREST) -> dict[str, Any]:
    """How much of the `k` nearest share a patch's label, and its slide, from embeddings of unit length `[N, D]` and labels `[N]` 0 or 1.

    "same_label" asks the nearest of other slides (of all where slides are unknown), "same_slide" the nearest of all; each is a mean over
    patches, with "by_chance", the same for neighbours drawn at random. "silhouette_label" and "silhouette_slide" (Rousseeuw 1987,
    cosine distance) run from -1 to 1: above 0, a patch is on average nearer to its own group than to the next. None where undefined.
    """
    labels, n = np.asarray(labels), len(labels)
    codes = np.arange(n) if slides is None else pd.factorize(pd.array(slides, dtype="str"), use_na_sentinel=False)[0]
    similarity = np.asarray(embeddings, np.float32) @ np.asarray(embeddings, np.float32).T
    itself, own = np.eye(n, dtype=bool), codes[:, None] == codes[None, :]
    by_label = _among(similarity, labels[:, None] == labels[None, :], ~own, k)
    by_slide = _among(similarity, own, ~itself, k) if slides is not None else (None, None)
    return {
        "n": n,
        "k": k,
        "same_label": {"value": by_label[0], "by_chance": by_label[1]},
        "same_slide": {"value": by_slide[0], "by_chance": by_slide[1]},
        "silhouette_label": _silhouette(embeddings, labels),
        "silhouette_slide": None if slides is None else _silhouette(embeddings, codes),
    }


def _among(similarity: np.ndarray, same: np.ndarray, allowed: np.ndarray, k: int) -> tuple[float | None, float | None]:
    """Mean share of `same` among the k nearest that are allowed, and among all that are; patches without any are left out."""
    asked = np.flatnonzero(allowed.any(axis=1))
    if not len(asked):
        return None, None
    order = np.argsort(-np.where(allowed, similarity, -np.inf)[asked], axis=1, kind="stable")[:, :k]
    there = np.take_along_axis(allowed[asked], order, axis=1)
    nearest = (np.take_along_axis(same[asked], order, axis=1) & there).sum(axis=1) / there.sum(axis=1)
    chance = (same & allowed)[asked].sum(axis=1) / allowed[asked].sum(axis=1)
    return float(nearest.mean()), float(chance.mean())


def _silhouette(embeddings, groups: np.ndarray) -> float | None:
    if not 1 < len(np.unique(groups)) < len(groups):
        return None
    return float(silhouette_score(np.asarray(embeddings, np.float32), groups, metric="cosine"))
