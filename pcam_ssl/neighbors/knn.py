"""kNN classification of embeddings: weighted votes of the nearest gallery patches (Wu et al. 2018, arXiv:1805.01978). No torch.

The defaults (cosine, weight exp(similarity / T), k = 20, T = 0.07) are those of Caron et al. 2021 (arXiv:2104.14294).
"""

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.index import EmbeddingIndex
from pcam_ssl.neighbors.search import search
from pcam_ssl.tables import predictions

K, TEMPERATURE = 20, 0.07


def knn_probs(similarity, neighbor_labels, temperature: float = TEMPERATURE) -> np.ndarray:
    """Share of class 1 in the vote, float64 [Q]: each neighbour votes for its label with weight exp(similarity / temperature).

    `similarity` [Q, k] is cosine, `neighbor_labels` [Q, k] are 0 or 1. A neighbour of similarity -inf (fewer than k were allowed)
    has no vote; a query without any gets 0.5. Equal to scikit-learn's KNeighborsClassifier with these weights.
    """
    similarity, labels = np.asarray(similarity, dtype=np.float64), np.asarray(neighbor_labels)
    there = np.isfinite(similarity)
    best = np.where(there, similarity, -1).max(axis=1, keepdims=True)
    # Weights relative to the nearest neighbour's cannot overflow however small the temperature.
    weights = np.where(there, np.exp((similarity - best) / temperature), 0)
    total = weights.sum(axis=1)
    tumor = (weights * (labels == 1)).sum(axis=1)
    return np.divide(tumor, total, out=np.full(len(total), 0.5), where=total > 0)


def knn_logits(similarity, neighbor_labels, temperature: float = TEMPERATURE) -> np.ndarray:
    """Logit of class 1, finite, float64 [Q]: log((n p + 1/2) / (n (1 - p) + 1/2)), with p of `knn_probs` and n neighbours.

    Half a vote for each class (Krichevsky and Trofimov 1981) keeps a unanimous vote finite: 20 of 20 is a prob of 0.976. It moves
    every other vote less, and keeps the order of queries with equally many neighbours.
    """
    share = knn_probs(similarity, neighbor_labels, temperature)
    n = np.isfinite(similarity).sum(axis=1)
    return np.log((n * share + 0.5) / (n * (1 - share) + 0.5))


def gallery_votes(gallery: EmbeddingIndex, queries, k: int = K, exclude: Exclusion | None = None) -> tuple[np.ndarray, np.ndarray]:
    """What `knn_logits` needs of queries [Q, D]: similarity [Q, k] and the labels [Q, k] of the k nearest gallery patches.

    Raises UserError for a gallery with unlabelled patches and for k larger than the gallery.
    """
    unlabelled = gallery.table["label"].isna()
    if unlabelled.any():
        first = gallery.table["id"][unlabelled].iloc[0]
        raise UserError(
            f"kNN: {unlabelled.sum():,} gallery patches have no label, first {first}; only labelled patches can vote, leave them out"
        )
    if k > len(gallery):
        raise UserError(
            f"kNN: k {k:,} is larger than the gallery of {len(gallery):,} patches; set neighbours.k to {len(gallery):,} or less"
        )
    similarity, rows = search(gallery, queries, k, exclude)
    return similarity, gallery.table["label"].to_numpy(dtype=np.int64)[rows]


def knn_predictions(
    gallery: EmbeddingIndex,
    queries,
    patches: pd.DataFrame,
    fold: int,
    k: int = K,
    temperature: float = TEMPERATURE,
    exclude: Exclusion | None = None,
) -> pd.DataFrame:
    """Predictions of queries [Q, D], described row by row by `patches` (`id`, `label`, `wsi`): logit of `knn_logits`, its prob.

    Raises the UserErrors of `gallery_votes` and `neighbors.search`.
    """
    votes = gallery_votes(gallery, queries, k, exclude)
    return predictions(patches["id"], patches["label"], patches["wsi"], fold, knn_logits(*votes, temperature))


def binary_nll(labels, logits) -> float:
    """Mean negative log-likelihood in nats of sigmoid(logit), exact for large logits."""
    margins = np.where(np.asarray(labels) == 1, logits, -np.asarray(logits, dtype=np.float64))
    return float(np.logaddexp(0, -margins).mean())
