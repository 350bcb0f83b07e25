"""Label propagation on a graph of nearest neighbours: labelled patches spread their class to patches without a label.

Zhou et al. 2004 (Learning with Local and Global Consistency) on the graph of Iscen et al. 2019 (arXiv:1904.04717): each node is joined
to its k nearest by weight cosine ** power, W = A + A', S = D^-1/2 W D^-1/2, and (I - alpha S) F = Y is solved by conjugate gradients.
Y is balanced: the labelled nodes of a class share a weight of 1. We deviate in the last step. Iscen et al. take the larger column of F;
here the share of class 1 in F becomes log-odds, with a scale (`log_odds`) and the ratio of the classes among the labelled nodes.

262,144 nodes of 50 neighbours take 17 s on one core (38 s at alpha 0.99) and 0.7 GB beside the neighbours (BENCHMARKS.md). The size of
the embeddings does not matter here.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

TOLERANCE = 1e-8
"""The norm of the residual at which the solution is taken, as a share of that of Y."""
MOST_STEPS = 10_000
EXTREME = 1e-3
"""The share of class 1 is kept this far from 0 and 1, so that log-odds are finite: +-6.9."""
COPY = 1e-6
"""Cosines within this of 1 are of the same embedding."""
SMALLEST_WEIGHT = 1e-12
"""Lighter edges are dropped: they join nobody, and their products underflow."""


@dataclass(frozen=True)
class Graph:
    """N nodes and the edges between them."""

    smooth: sparse.csr_array
    """S float64 `[N, N]`, symmetric and without loops."""
    degrees: np.ndarray
    """float64 `[N]`: sum of the weights of a node's edges."""
    labels: np.ndarray
    """int `[N]`: 0 or 1; -1 without a label."""
    island: np.ndarray
    """bool `[N]`: whether no path leads to a labelled node."""
    n_islands: int
    """How many connected parts of the graph hold no labelled node."""
    power: float

    @classmethod
    def of(cls, similarity: np.ndarray, rows: np.ndarray, labels: np.ndarray, power: float) -> "Graph":
        """The graph of each node's nearest: cosine `[N, k]` and row `[N, k]`; the node itself and -1 are no edges.

        `labels` `[N]` are 0 or 1, and -1 without a label; `power` is the exponent of the edge weights.
        """
        weights = affinity(similarity, rows, power)
        degrees = np.asarray(weights.sum(axis=1)).ravel()
        count, component = connected_components(weights, directed=False)
        alone = np.setdiff1d(np.arange(count), component[labels >= 0])
        return cls(normalised(weights, degrees), degrees, labels, np.isin(component, alone), len(alone), power)

    def spread(self, alpha: float) -> "Propagated":
        """The graph solved; `alpha` in (0, 1) is the share that a node takes from its neighbours. Raises ValueError where a class has no label."""
        counts = np.array([(self.labels == each).sum() for each in (0, 1)])
        if not counts.all():
            raise ValueError("label propagation needs labelled nodes of both classes")
        seeds = np.stack([(self.labels == each) / counts[each] for each in (0, 1)], axis=1)
        scores, steps = solve(self.smooth, seeds, alpha)
        return Propagated(self, scores, float(np.log(counts[1] / counts[0])), steps)


@dataclass(frozen=True)
class Propagated:
    """A solved graph of N nodes."""

    graph: Graph
    scores: np.ndarray
    """F, float64 `[N, 2]`, not negative: what reaches a node from the labelled nodes of each class. Zero on islands."""
    prior: float
    """Log-odds of class 1 among the labelled nodes: the score of what no labelled node reaches."""
    steps: int
    """Steps of conjugate gradients."""

    def logits(self, scale: float = 1.0) -> np.ndarray:
        """Log-odds of class 1 of the nodes, float64 `[N]`; `scale` as of `log_odds`."""
        return log_odds(self.scores, self.prior, scale)

    def logits_of(self, similarity: np.ndarray, rows: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Log-odds of class 1 of queries that are no nodes, float64 `[Q]`, from their nearest nodes: cosine `[Q, k]` and row `[Q, k]`.

        A query gets what its neighbours would pass on to it, without passing anything back: the mean of F / sqrt(degree), weighted by
        cosine ** power. So no query depends on another one, nor a node on a query. Where nodes have the query's embedding, the mean
        of their F is taken alone.
        """
        weights = edge_weights(similarity, rows, self.graph.power) * _inverse_root(self.graph.degrees)[rows]
        copies = (np.asarray(similarity) >= 1 - COPY) & (rows >= 0)
        weights = np.where(copies.any(axis=1, keepdims=True), copies, weights)
        passed = np.stack([(weights * self.scores[rows, each]).sum(axis=1) for each in (0, 1)], axis=1)
        return log_odds(passed, self.prior, scale)


def edge_weights(similarity: np.ndarray, rows: np.ndarray, power: float) -> np.ndarray:
    """cosine ** power, float64 `[N, k]`; 0 for opposite directions and missing neighbours (row -1)."""
    cosine = np.where(rows >= 0, similarity, 0).astype(np.float64)
    weights = np.clip(cosine, 0, 1) ** power
    return np.where(weights < SMALLEST_WEIGHT, 0, weights)


def affinity(similarity: np.ndarray, rows: np.ndarray, power: float) -> sparse.csr_array:
    """W `[N, N]`, symmetric and without loops: A + A', where A has the edge weights of each node's neighbours."""
    n, k = rows.shape
    weights = edge_weights(similarity, rows, power)
    edge = (weights > 0) & (rows != np.arange(n)[:, None])
    starts = np.concatenate([[0], np.cumsum(edge.sum(axis=1))])
    # int32 indices take half the memory; they hold up to 2**31 edges.
    index = np.int32 if 2 * n * k < 2**31 else np.int64
    one_way = sparse.csr_array((weights[edge], rows[edge].astype(index), starts.astype(index)), shape=(n, n))
    return sparse.csr_array(one_way + one_way.T)


def normalised(weights: sparse.csr_array, degrees: np.ndarray) -> sparse.csr_array:
    """S = D^-1/2 W D^-1/2 `[N, N]`; rows of nodes without edges stay 0. Overwrites `weights`."""
    scale = _inverse_root(degrees)
    weights.data *= np.repeat(scale, np.diff(weights.indptr))
    weights.data *= scale[weights.indices]
    return weights


def _inverse_root(degrees: np.ndarray) -> np.ndarray:
    return np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)


def solve(smooth: sparse.csr_array, seeds: np.ndarray, alpha: float) -> tuple[np.ndarray, int]:
    """F of (I - alpha S) F = Y by conjugate gradients, float64 `[N, C]`, and the steps taken; S `[N, N]`, Y `[N, C]`.

    The columns take their steps side by side, so that S is read once a step. I - alpha S is positive definite for alpha below 1.
    """
    found, residual = np.zeros_like(seeds), seeds.copy()
    direction, squares = residual.copy(), (residual**2).sum(axis=0)
    enough = TOLERANCE**2 * squares
    for steps in range(MOST_STEPS):
        if (squares <= enough).all():
            # F is a sum of products that are not negative; rounding may take it below 0.
            return np.maximum(found, 0), steps
        image = direction - alpha * (smooth @ direction)
        curvature = (direction * image).sum(axis=0)
        length = np.divide(squares, curvature, out=np.zeros_like(squares), where=curvature > 0)
        found += length * direction
        residual -= length * image
        before, squares = squares, (residual**2).sum(axis=0)
        direction = residual + np.divide(squares, before, out=np.zeros_like(squares), where=before > 0) * direction
    raise RuntimeError(f"conjugate gradients did not end in {MOST_STEPS:,} steps at alpha {alpha:g}")


def log_odds(scores: np.ndarray, prior: float, scale: float = 1.0) -> np.ndarray:
    """Log-odds of class 1, float64 `[N]`, from F `[N, 2]`: `prior` + `scale` x those of the share of class 1; `prior` where F is 0.

    The nearer alpha is to 1, the more alike are the columns of F, and the larger is the scale that makes log-odds of them.
    """
    total = scores.sum(axis=1)
    share = np.divide(scores[:, 1], total, out=np.full(len(total), 0.5), where=total > 0)
    share = EXTREME + (1 - 2 * EXTREME) * share
    return scale * np.log(share / (1 - share)) + prior


def graph_bytes(n: int, k: int) -> int:
    """Memory of a graph of n nodes of k neighbours while it is built: neighbours (12 bytes an edge), weights and rows of A, A' and W."""
    return n * k * (12 + 8 + 4 * 12)
