"""Exact nearest neighbours with each query's own slide excluded, or with any rows excluded.

A query must not find its own slide, and its slide may hold thousands of the nearest patches. Retrieving more neighbours and dropping
some does not guarantee k; searching slide by slide makes batches too small to be fast. So the gallery, ordered by slide, is
halved recursively: queries whose slide is in the left half search the whole right half in one batch, and the
reverse; then each half does the same with its own queries. Every query is compared with each allowed patch once, and small batches
search only small parts of the gallery.
"""

from contextlib import contextmanager

import faiss
import numpy as np

BATCH_FOR_BLAS = 8
"""From this many queries on, a matrix product is faster than single inner products: 5 ms a query instead of 12 at 16 queries
(gallery 262,144 x 128)."""

MASKED = 2**24
"""Similarities in memory at once in a masked search: 64 MB."""

GROUP = 64

NOISE = 1e-6
"""Bound on the rounding error of an inner product of two float32 unit vectors. The largest seen was 5e-7, at 6 to 512 dimensions."""

PRODUCTS = 2**22
"""Products of pairs in memory at once: 16 MB."""


def pair_similarities(vectors: np.ndarray, queries: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Inner products float32 [Q, k] of queries [Q, D] with the vectors [N, D] at `places` [Q, k], each pair summed separately.

    In a matrix product, and so in FAISS, the last digits of a pair depend on the batch and on the CPU, so equal vectors can get
    unequal similarities.
    """
    found = np.empty(places.shape, dtype=np.float32)
    step = max(1, PRODUCTS // max(1, places.shape[1] * vectors.shape[1]))
    for start in range(0, len(queries), step):
        products = vectors[places[start : start + step]]  # [q, k, D]
        products *= queries[start : start + step, None]
        found[start : start + step] = products.sum(axis=2)
    return found


def outside_ranges(knn, n: int, queries: np.ndarray, ranges: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest places outside each query's own range: similarity float32 [Q, k], falling, and place int64 [Q, k].

    `knn(queries, start, stop, k)` searches the places start..stop. `ranges` [Q, 2] are start and stop of each query's range within
    0..n; two ranges are equal or disjoint, as slides are, and start = stop excludes nothing. Missing neighbours have place -1 and
    similarity -inf.
    """
    found = np.full((len(queries), k), -np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)

    def take(members, start, stop):
        if len(members) and start < stop:
            _merge(found, members, knn(queries[members], start, stop, k))

    def split(members, start, stop):
        if not len(members):
            return
        starts = np.unique(ranges[members, 0])
        if len(starts) == 1:
            low, high = ranges[members[0]]
            take(members, start, low)
            take(members, high, stop)
            return
        middle = starts[np.clip(np.searchsorted(starts, (start + stop) // 2), 1, len(starts) - 1)]
        left = ranges[members, 0] < middle
        take(members[left], middle, stop)
        take(members[~left], start, middle)
        split(members[left], start, middle)
        split(members[~left], middle, stop)

    bounded = ranges[:, 0] < ranges[:, 1]
    take(np.flatnonzero(~bounded), 0, n)
    split(np.flatnonzero(bounded), 0, n)
    return found


def _merge(found, members: np.ndarray, more) -> None:
    similarity, place = found
    both = np.stack([similarity[members], more[0]]), np.stack([place[members], more[1]])
    similarity[members], place[members] = faiss.merge_knn_results(*both, keep_max=True)
    absent = place[members] < 0
    if absent.any():
        similarity[members] = np.where(absent, -np.inf, similarity[members])


def masked_neighbors(vectors, order, queries, k: int, ranges, places) -> tuple[np.ndarray, np.ndarray]:
    """Similarity float32 [Q, k] and row int64 [Q, k] of the k nearest rows outside each query's range and `places`; ties go to the lower row.

    `vectors` [N, D] are in order of place, `order` [N] is the row of each place. Every similarity is computed.
    """
    n = len(vectors)
    found = np.full((len(queries), k), -np.inf, dtype=np.float32), np.full((len(queries), k), -1, dtype=np.int64)
    step = max(1, MASKED // n)
    room = np.empty((min(step, len(queries)), n), dtype=np.float32)
    for start in range(0, len(queries), step):
        chunk = queries[start : start + step]
        scores = np.matmul(chunk, vectors.T, out=room[: len(chunk)])
        for query, score in enumerate(scores, start):
            score[slice(*ranges[query])] = -np.inf
            score[places[query]] = -np.inf
            near = _highest(score, k)
            similarity = pair_similarities(vectors, queries[query : query + 1], near[None])[0]
            best = np.lexsort((order[near], -similarity))[:k]
            found[0][query, : len(best)], found[1][query, : len(best)] = similarity[best], order[near[best]]
    return found


def _highest(score: np.ndarray, k: int) -> np.ndarray:
    """Places of the finite scores that can be among the k highest, allowing an error of `NOISE` in each."""
    # At least k scores reach the k-th highest of the groups' maxima, so only groups that reach it need sorting.
    columns = len(score) // GROUP
    near = np.arange(len(score))
    if columns > k:
        peaks = score[: GROUP * columns].reshape(GROUP, columns).max(axis=0)
        bound = np.partition(peaks, columns - k)[columns - k]
        groups = np.flatnonzero(peaks >= bound - 2 * NOISE)
        near = np.concatenate([(groups + columns * np.arange(GROUP)[:, None]).ravel(), near[GROUP * columns :]])
    near = near[score[near] > -np.inf]
    if len(near) > k:
        near = near[score[near] >= np.partition(score[near], len(near) - k)[len(near) - k] - 2 * NOISE]
    return near


@contextmanager
def matrix_products(dimension: int):
    """Let FAISS use matrix products from `BATCH_FOR_BLAS` queries on; version 1.15 would need 128,000 / D queries."""
    before = faiss.cvar.distance_compute_blas_threshold
    # Up to version 1.14 the threshold counts queries and is 20; from 1.15 on it counts queries x D. The minimum is right for both.
    faiss.cvar.distance_compute_blas_threshold = min(before, BATCH_FOR_BLAS * dimension)
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before
