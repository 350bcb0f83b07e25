"""Embeddings as unit vectors, for which cosine is the inner product. They are read in chunks, so a file is never loaded whole."""

import numpy as np

from pcam_ssl.errors import UserError

CHUNK = 2**14
NAMED = 3


def row_lengths(embeddings, ids=None) -> np.ndarray:
    """Euclidean length of each row, float64 [N], of embeddings [N, D] (an array or a memory map, any float type).

    Raises UserError naming the first ids (rows where `ids` is None) whose embedding is NaN, infinite, or all zeros. Such embeddings
    have no cosine.
    """
    lengths = np.empty(len(embeddings))
    for start in range(0, len(embeddings), CHUNK):
        chunk = np.asarray(embeddings[start : start + CHUNK], dtype=np.float64)
        lengths[start : start + CHUNK] = np.sqrt((chunk * chunk).sum(axis=1))
    problems = []
    for broken, what, fix in (
        (~np.isfinite(lengths), "NaN or infinite", "the network diverged on them: embed again with a sound network, or drop them"),
        (lengths == 0, "all zeros", "zeros have no direction: embed these patches again, or drop them"),
    ):
        if broken.any():
            first = np.flatnonzero(broken)[:NAMED]
            names = ", ".join(str(row) if ids is None else str(ids[row]) for row in first)
            problems.append(f"{broken.sum():,} of {len(lengths):,} embeddings are {what}, first of {_kind(ids)} {names}; {fix}")
    if problems:
        raise UserError(*problems)
    return lengths


def _kind(ids) -> str:
    return "row" if ids is None else "id"


def unit_rows(embeddings, ids=None, out: np.ndarray | None = None, places: np.ndarray | None = None) -> np.ndarray:
    """The rows divided by their length, float32 [N, D], written into `out` where given (row i at `places[i]`).

    Raises the UserErrors of `row_lengths`.
    """
    lengths = row_lengths(embeddings, ids)
    out = np.empty(embeddings.shape, dtype=np.float32) if out is None else out
    for start, chunk in unit_chunks(embeddings, lengths):
        target = slice(start, start + len(chunk)) if places is None else places[start : start + len(chunk)]
        out[target] = chunk
    return out


def unit_chunks(embeddings, lengths: np.ndarray):
    """Yield (first row, unit rows float32 [n, D]) over the whole of `embeddings`."""
    for start in range(0, len(embeddings), CHUNK):
        chunk = np.asarray(embeddings[start : start + CHUNK], dtype=np.float64)
        yield start, (chunk / lengths[start : start + len(chunk), None]).astype(np.float32)
