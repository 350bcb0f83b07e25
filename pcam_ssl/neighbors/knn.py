"""kNN classification of embeddings: weighted votes of the nearest gallery patches (Wu et al. 2018, arXiv:1805.01978).

The defaults (cosine, weight exp(similarity / T), k = 20, T = 0.07) are those of Caron et al. 2021 (arXiv:2104.14294). k, T and the share
of kNN in a blend with the head are chosen on inner slides by NLL.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import NLL_ROUNDING
from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.index import EmbeddingIndex
from pcam_ssl.neighbors.search import search
from pcam_ssl.tables import predictions

K, TEMPERATURE = 20, 0.07


def knn_probs(similarity, neighbor_labels, temperature: float = TEMPERATURE) -> np.ndarray:
    """Share of class 1 in the vote, float64 [Q]. Each neighbour votes for its label with weight exp(similarity / temperature).

    `similarity` [Q, k] is cosine, `neighbor_labels` [Q, k] are 0 or 1. A neighbour of similarity -inf (fewer than k were allowed)
    has no vote; a query without neighbours gets 0.5. Equal to scikit-learn's KNeighborsClassifier with these weights.
    """
    similarity, labels = np.asarray(similarity, dtype=np.float64), np.asarray(neighbor_labels)
    valid = np.isfinite(similarity)
    best = np.where(valid, similarity, -1).max(axis=1, keepdims=True)
    # Weights relative to the nearest neighbour cannot overflow at any temperature.
    weights = np.where(valid, np.exp((similarity - best) / temperature), 0)
    total = weights.sum(axis=1)
    tumor = (weights * (labels == 1)).sum(axis=1)
    return np.divide(tumor, total, out=np.full(len(total), 0.5), where=total > 0)


def knn_logits(similarity, neighbor_labels, temperature: float = TEMPERATURE) -> np.ndarray:
    """Logit of class 1, finite, float64 [Q]: log((n p + 1/2) / (n (1 - p) + 1/2)), with p from `knn_probs` and n neighbours.

    Half a vote for each class (Krichevsky and Trofimov 1981) keeps a unanimous vote finite: 20 of 20 is a prob of 0.976. Other votes
    change less, and queries with the same number of neighbours keep their order.
    """
    share = knn_probs(similarity, neighbor_labels, temperature)
    n = np.isfinite(similarity).sum(axis=1)
    return np.log((n * share + 0.5) / (n * (1 - share) + 0.5))


def gallery_votes(gallery: EmbeddingIndex, queries, k: int = K, exclude: Exclusion | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Similarity [Q, k] and label [Q, k] of the k nearest gallery patches of queries [Q, D]: the input of `knn_logits`.

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
    """Predictions of queries [Q, D] with the logit of `knn_logits`; `patches` has the `id`, `label` and `wsi` of each row.

    Raises the UserErrors of `gallery_votes` and `neighbors.search`.
    """
    votes = gallery_votes(gallery, queries, k, exclude)
    return predictions(patches["id"], patches["label"], patches["wsi"], fold, knn_logits(*votes, temperature))


def binary_nll(labels, logits) -> float:
    """Mean negative log-likelihood in nats of sigmoid(logit), accurate for large logits."""
    margins = np.where(np.asarray(labels) == 1, logits, -np.asarray(logits, dtype=np.float64))
    return float(np.logaddexp(0, -margins).mean())


KS = (5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.04, 0.07, 0.15, 0.3, 1.0)


@dataclass(frozen=True)
class Vote:
    """The k and temperature of a kNN classifier, their NLL on inner slides, and the `reason` where the defaults were kept."""

    k: int
    temperature: float
    nll: float | None
    n: int
    reason: str | None = None

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self)


def choose_k_and_temperature(similarity, neighbor_labels, labels, ks=KS, temperatures=TEMPERATURES) -> Vote:
    """The k and T with the lowest NLL on inner queries, from their neighbours [Q, K] (nearest first, K the largest k) and labels [Q].

    One search covers every k. Values of `ks` above K are skipped; of equal NLLs the first in the grid is chosen. Without
    labelled inner patches, or with one class, the defaults are returned (k at most K) and `reason` says why.
    """
    similarity, neighbor_labels, labels = np.asarray(similarity), np.asarray(neighbor_labels), np.asarray(labels)
    widest = similarity.shape[1]
    reason = no_choice(labels)
    if reason:
        return Vote(min(K, widest), TEMPERATURE, None, len(labels), f"{reason}: the default k and temperature")
    best = None
    for k in [k for k in ks if k <= widest] or [widest]:
        for temperature in temperatures:
            nll = binary_nll(labels, knn_logits(similarity[:, :k], neighbor_labels[:, :k], temperature))
            if best is None or nll < best.nll - NLL_ROUNDING:
                best = Vote(k, temperature, nll, len(labels))
    return best


@dataclass(frozen=True)
class Blend:
    """Blend of head and kNN: the head has `weight` in [0, 1], kNN the rest. With the NLL on inner slides, and the `reason` where the head stays alone."""

    weight: float
    nll: float | None
    n: int
    reason: str | None = None

    def logits(self, head, knn) -> np.ndarray:
        """weight * head + (1 - weight) * knn, float64 [N]."""
        return self.weight * np.asarray(head, dtype=np.float64) + (1 - self.weight) * np.asarray(knn, dtype=np.float64)

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self)


def blend_weight(head_logits, knn_logits, labels) -> Blend:
    """The Blend with the lowest NLL, from logits [N] of both on inner slides (calibrated, where they are used calibrated) and labels [N].

    The NLL of sigmoid(w * head + (1 - w) * knn) is convex in w, so it has one minimum in [0, 1], which may be 0 or 1. Without
    labelled inner patches, or with one class, the weight is 1 and `reason` says why.
    """
    labels = np.asarray(labels)
    reason = no_choice(labels)
    if reason:
        return Blend(1.0, None, len(labels), f"{reason}: the head alone")
    head, knn = np.asarray(head_logits, dtype=np.float64), np.asarray(knn_logits, dtype=np.float64)

    def nll(weight):
        return binary_nll(labels, weight * head + (1 - weight) * knn)

    inside = minimize_scalar(nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-4}).x
    costs = {weight: nll(weight) for weight in (1.0, 0.0, float(inside))}
    weight = next(weight for weight, cost in costs.items() if cost <= min(costs.values()) + NLL_ROUNDING)
    return Blend(weight, costs[weight], len(labels))


def no_choice(labels: np.ndarray) -> str | None:
    """Why nothing can be chosen by the NLL of inner patches with these labels `[Q]`; None where it can."""
    if not len(labels):
        return "no labelled inner patches"
    return f"the {len(labels)} inner patches are all of class {int(labels[0])}" if labels.min() == labels.max() else None
