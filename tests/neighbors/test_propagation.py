"""Label propagation: equal to a dense solve, right on two moons, silent on islands, and the same for copies of nodes."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_moons

from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.propagation import EXTREME, Graph, graph_bytes
from pcam_ssl.neighbors.search import search

K, ALPHA, POWER = 5, 0.9, 2.0


def neighbours(embeddings: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    index = build_index(embeddings, pd.DataFrame({"id": [str(i) for i in range(len(embeddings))]}))
    return search(index, queries, k)


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def dense_weights(embeddings: np.ndarray, k: int, power: float) -> np.ndarray:
    """W by a loop over the nodes."""
    cosine = unit(embeddings) @ unit(embeddings).T
    np.fill_diagonal(cosine, -np.inf)
    one_way = np.zeros_like(cosine)
    for node, line in enumerate(cosine):
        nearest = np.argsort(-line)[:k]
        one_way[node, nearest] = np.clip(line[nearest], 0, None) ** power
    return one_way + one_way.T


def dense_scores(weights: np.ndarray, labels: np.ndarray, alpha: float) -> np.ndarray:
    """F by numpy."""
    root = np.diag(weights.sum(axis=1) ** -0.5)
    seeds = np.stack([(labels == each) / (labels == each).sum() for each in (0, 1)], axis=1)
    return np.linalg.solve(np.eye(len(weights)) - alpha * root @ weights @ root, seeds)


def log_odds(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    share = EXTREME + (1 - 2 * EXTREME) * scores[:, 1] / scores.sum(axis=1)
    return np.log(share / (1 - share)) + np.log((labels == 1).sum() / (labels == 0).sum())


@pytest.fixture(scope="module")
def cloud():
    """Embeddings [60, 4] of two classes, of which 12 patches have a label (4 of class 1)."""
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3 == 0
    embeddings = (rng.normal(size=(60, 4)) + np.where(truth, 1.5, -0.5)[:, None]).astype(np.float32)
    return embeddings, np.where(np.arange(60) < 12, truth, -1).astype(int)


@pytest.fixture(scope="module")
def graph(cloud):
    embeddings, labels = cloud
    return Graph.of(*neighbours(embeddings, embeddings, 1 + K), labels, POWER)


@pytest.mark.parametrize("alpha", [0.1, 0.9, 0.99])
def test_it_is_a_dense_solve(cloud, graph, alpha):
    embeddings, labels = cloud
    expected = dense_scores(dense_weights(embeddings, K, POWER), labels, alpha)
    np.testing.assert_allclose(graph.spread(alpha).scores, expected, rtol=1e-4, atol=1e-8)


def test_log_odds_put_the_ratio_of_the_labels_back(cloud, graph):
    solved = graph.spread(ALPHA)
    np.testing.assert_allclose(solved.logits(), log_odds(solved.scores, cloud[1]))


def test_two_moons_are_told_apart_by_four_labels():
    points, truth = make_moons(400, noise=0.05, random_state=0)
    # On a sphere: a point of the plane is as near by angle as it was by distance.
    embeddings = np.column_stack([points, np.full(400, 3.0)]).astype(np.float32)
    labels = np.full(400, -1)
    for each in (0, 1):
        labels[np.flatnonzero(truth == each)[:2]] = each
    solved = Graph.of(*neighbours(embeddings, embeddings, 11), labels, 1.0).spread(0.99)
    assert np.mean((solved.logits() > 0) == truth) > 0.98


def test_islands_have_the_prior_and_are_counted(cloud):
    embeddings, labels = cloud
    lonely = np.zeros((7, 6), np.float32)
    lonely[:4, 4], lonely[4:, 5] = 1, 1
    wide = np.vstack([np.pad(embeddings, ((0, 0), (0, 2))), lonely])
    labels = np.append(labels, np.full(7, -1))
    graph = Graph.of(*neighbours(wide, wide, 1 + K), labels, POWER)
    solved = graph.spread(ALPHA)
    assert graph.n_islands == 2
    assert np.flatnonzero(graph.island).tolist() == list(range(60, 67))
    np.testing.assert_allclose(solved.logits()[60:], np.log(4 / 8))
    np.testing.assert_allclose(solved.logits_of(*neighbours(wide, lonely[:1] * 3, 2)), np.log(4 / 8))


def test_opposite_patches_and_the_patch_itself_are_no_edges():
    similarity, rows = np.array([[1.0, -0.5], [1.0, -0.5]]), np.array([[0, 1], [1, 0]])
    graph = Graph.of(similarity, rows, np.array([0, 1]), 1.0)
    assert graph.smooth.nnz == 0
    np.testing.assert_array_equal(graph.degrees, [0, 0])


def test_a_copy_of_a_node_has_its_score(cloud, graph):
    embeddings, _ = cloud
    solved = graph.spread(ALPHA)
    found = solved.logits_of(*neighbours(embeddings, embeddings[:20] * 2, K))
    np.testing.assert_allclose(found, solved.logits()[:20], rtol=1e-9)


def test_a_query_gets_what_its_neighbours_pass_on(cloud, graph):
    embeddings, labels = cloud
    queries = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    weights, cosine = dense_weights(embeddings, K, POWER), unit(queries) @ unit(embeddings).T
    scores = dense_scores(weights, labels, ALPHA) / np.sqrt(weights.sum(axis=1))[:, None]
    expected = []
    for line in cosine:
        nearest = np.argsort(-line)[:K]
        expected.append(np.clip(line[nearest], 0, None) ** POWER @ scores[nearest])
    found = graph.spread(ALPHA).logits_of(*neighbours(embeddings, queries, K))
    np.testing.assert_allclose(found, log_odds(np.array(expected), labels), rtol=1e-4)


def test_a_query_scores_the_same_alone(cloud, graph):
    embeddings, _ = cloud
    queries = np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32)
    solved = graph.spread(ALPHA)
    together = solved.logits_of(*neighbours(embeddings, queries, K))
    alone = [solved.logits_of(*neighbours(embeddings, queries[i : i + 1], K))[0] for i in range(9)]
    np.testing.assert_array_equal(together, alone)


def test_one_class_cannot_spread(cloud):
    embeddings, labels = cloud
    graph = Graph.of(*neighbours(embeddings, embeddings, 1 + K), np.where(labels == 1, -1, labels), POWER)
    with pytest.raises(ValueError, match="both classes"):
        graph.spread(ALPHA)


def test_memory_grows_with_edges():
    assert graph_bytes(1000, 100) == 2 * graph_bytes(1000, 50) == 20 * graph_bytes(100, 50)
