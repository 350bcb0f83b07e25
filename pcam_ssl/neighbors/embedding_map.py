"""A flat map of embeddings, to look at: PCA, or UMAP where it is installed. No torch."""

import numpy as np
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from pcam_ssl.errors import UserError

METHODS = ("pca", "umap")
SAMPLE = 20_000
CHUNK = 16_384


def embedding_map(embeddings, method: str = "pca", seed: int = 0, sample: int = SAMPLE) -> np.ndarray:
    """Places float32 `[N, 2]` of embeddings `[N, D]`, which may be memory-mapped: near in the map is, roughly, near in the space.

    The map is learned from at most `sample` rows drawn by `seed`, and the rest are placed in chunks, so that memory does not grow
    with N. "pca" shows the two directions of greatest variance and keeps distances as well as two numbers can; "umap" (McInnes et
    al. 2018, arXiv:1802.03426; the extra `pcam-ssl[explore]`) keeps who is whose neighbour, and neither distances nor densities
    mean anything in it. Raises UserError for another method, and where UMAP is asked for and absent or has too few rows.
    """
    if method not in METHODS:
        raise UserError(f"map {method}: choose {' or '.join(METHODS)}")
    n = len(embeddings)
    if n < 2:
        return np.zeros((n, 2), np.float32)
    drawn = np.sort(np.random.default_rng(seed).choice(n, min(n, sample), replace=False))
    known = np.asarray(embeddings[drawn], np.float32)
    flat = np.zeros((n, 2), np.float32)
    rest = np.setdiff1d(np.arange(n), drawn, assume_unique=True)
    # UMAP raises the number of OpenMP threads for the whole process, and torch's last digits depend on it: leaving restores it.
    with threadpool_limits():
        fitted, places = (_pca if method == "pca" else _umap)(known, seed)
        flat[drawn, : places.shape[1]] = places
        for start in range(0, len(rest), CHUNK):
            rows = rest[start : start + CHUNK]
            flat[rows, : places.shape[1]] = fitted.transform(np.asarray(embeddings[rows], np.float32))
    return flat


def _pca(known: np.ndarray, seed: int):
    """Embeddings of one number have one direction: the other column of the map stays at 0."""
    fitted = PCA(min(2, *known.shape), random_state=seed).fit(known)
    return fitted, fitted.transform(known)


def _umap(known: np.ndarray, seed: int):
    try:
        from umap import UMAP
    except ImportError:
        raise UserError("map umap: UMAP is not installed; pip install 'pcam-ssl[explore]', or take the map pca") from None
    # n_jobs is 1 wherever a seed is given; naming it keeps UMAP from warning so.
    fitted = UMAP(n_components=2, random_state=seed, n_jobs=1)
    if len(known) <= fitted.n_neighbors:
        raise UserError(f"map umap: {len(known)} patches are too few, it compares each with {fitted.n_neighbors}; take the map pca")
    fitted.fit(known)
    return fitted, fitted.embedding_
