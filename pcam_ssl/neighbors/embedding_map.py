"""Two-dimensional maps of embeddings (PCA, UMAP), and scores of the full embedding space: neighbour purity and silhouette."""

from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pcam_ssl.errors import UserError

METHODS = ("pca", "umap")
SAMPLE = 20_000
CHUNK = 16_384


def embedding_map(embeddings, method: str = "pca", seed: int = 0, sample: int = SAMPLE) -> np.ndarray:
    """Coordinates float32 `[N, 2]` of embeddings `[N, D]`, which may be memory-mapped.

    The map is fitted on at most `sample` rows drawn by `seed`. The other rows are projected in chunks, so memory does not grow
    with N. "pca" shows the two directions of greatest variance. "umap" (McInnes et al. 2018, arXiv:1802.03426; needs the extra
    `pcam-ssl[explore]`) preserves neighbourhoods, but its distances and densities have no meaning. Raises UserError for another
    method, and for "umap" where UMAP is not installed or there are too few rows.
    """
    if method not in METHODS:
        raise UserError(f"map {method}: choose {' or '.join(METHODS)}")
    n = len(embeddings)
    if n < 2:
        return np.zeros((n, 2), np.float32)
    drawn = np.sort(np.random.default_rng(seed).choice(n, min(n, sample), replace=False))
    sampled = np.asarray(embeddings[drawn], np.float32)
    flat = np.zeros((n, 2), np.float32)
    rest = np.setdiff1d(np.arange(n), drawn, assume_unique=True)
    # UMAP raises the number of OpenMP threads of the process, and torch's last digits depend on it. The context restores the number.
    with threadpool_limits():
        fitted, places = (_pca if method == "pca" else _umap)(sampled, seed)
        flat[drawn, : places.shape[1]] = places
        for start in range(0, len(rest), CHUNK):
            rows = rest[start : start + CHUNK]
            flat[rows, : places.shape[1]] = fitted.transform(np.asarray(embeddings[rows], np.float32))
    return flat


def _pca(sampled: np.ndarray, seed: int):
    """The fitted PCA and its coordinates. Embeddings of one dimension give one column; the other column of the map stays 0."""
    from sklearn.decomposition import PCA  # here, since a report without maps does without it

    fitted = PCA(min(2, *sampled.shape), random_state=seed).fit(sampled)
    return fitted, fitted.transform(sampled)


def _umap(sampled: np.ndarray, seed: int):
    try:
        from umap import UMAP
    except ImportError:
        raise UserError("map umap: UMAP is not installed; pip install 'pcam-ssl[explore]', or take the map pca") from None
    # With a seed UMAP uses one job. Setting n_jobs=1 avoids its warning.
    fitted = UMAP(n_components=2, random_state=seed, n_jobs=1)
    if len(sampled) <= fitted.n_neighbors:
        raise UserError(
            f"map umap: {len(sampled)} patches are too few, it compares each with {fitted.n_neighbors}; take the map pca"
        )
    fitted.fit(sampled)
    return fitted, fitted.embedding_


NEAREST = 10


def neighborhood_scores(embeddings, labels, slides=None, k: int = NEAREST) -> dict[str, Any]:
    """Neighbour purity and silhouettes, from embeddings of unit length `[N, D]` and labels `[N]` 0 or 1.

    "same_label": the share of the `k` nearest patches of other slides with the patch's label (of all patches where slides are
    unknown). "same_slide": the share of the `k` nearest of all patches that are of the patch's slide. Both are means over patches,
    with "by_chance", the same share for random neighbours. "silhouette_label" and "silhouette_slide" (Rousseeuw 1987, cosine
    distance) range from -1 to 1; above 0, a patch is on average closer to its own group than to the nearest other. None where undefined.
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
    """Mean share of `same` among the k nearest allowed patches, and among all allowed; patches without an allowed one are dropped."""
    queries = np.flatnonzero(allowed.any(axis=1))
    if not len(queries):
        return None, None
    order = np.argsort(-np.where(allowed, similarity, -np.inf)[queries], axis=1, kind="stable")[:, :k]
    valid = np.take_along_axis(allowed[queries], order, axis=1)
    nearest = (np.take_along_axis(same[queries], order, axis=1) & valid).sum(axis=1) / valid.sum(axis=1)
    chance = (same & allowed)[queries].sum(axis=1) / allowed[queries].sum(axis=1)
    return float(nearest.mean()), float(chance.mean())


def _silhouette(embeddings, groups: np.ndarray) -> float | None:
    from sklearn.metrics import silhouette_score  # here, since a report without maps does without it

    if not 1 < len(np.unique(groups)) < len(groups):
        return None
    return float(silhouette_score(np.asarray(embeddings, np.float32), groups, metric="cosine"))
