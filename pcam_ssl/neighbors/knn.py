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


KS = (5, 10, 20, 50, 100, 200)
TEMPERATURES = (0.02, 0.04, 0.07, 0.15, 0.3, 1.0)


@dataclass(frozen=True)
class Vote:
    """The k and temperature of a kNN classifier, their inner NLL, and why they are the defaults, if they were not chosen."""

    k: int
    temperature: float
    nll: float | None
    n: int
    reason: str | None = None

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return asdict(self)


def choose_k_and_temperature(similarity, neighbor_labels, labels, ks=KS, temperatures=TEMPERATURES) -> Vote:
    """The k and T of least NLL on inner queries: their neighbours [Q, K] (nearest first, K the largest k), their labels [Q].

    One search serves every k. Values of `ks` above K are passed over; of equal NLL the first in the grid wins. Without
    labelled inner patches, or with one class, the defaults come back (k at most K) and `reason` says so.
    """
    similarity, neighbor_labels, labels = np.asarray(similarity), np.asarray(neighbor_labels), np.asarray(labels)
    widest = similarity.shape[1]
    reason = _no_choice(labels)
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
    """`weight` of the head in [0, 1], the rest is kNN's; its inner NLL, and why it is 1, if it was not chosen."""

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
    """The weight of the head in the blend of least NLL, from inner logits [N] of both (calibrated, where they will be) and labels.

    The NLL of sigmoid(w * head + (1 - w) * knn) is convex in w, so it has one minimum in [0, 1]; a minimum at an end is
    returned as that end. Without labelled inner patches, or with one class, the head stands alone and `reason` says so.
    """
    labels = np.asarray(labels)
    reason = _no_choice(labels)
    if reason:
        return Blend(1.0, None, len(labels), f"{reason}: the head alone")
    head, knn = np.asarray(head_logits, dtype=np.float64), np.asarray(knn_logits, dtype=np.float64)

    def nll(weight):
        return binary_nll(labels, weight * head + (1 - weight) * knn)

    inside = minimize_scalar(nll, bounds=(0, 1), method="bounded", options={"xatol": 1e-4}).x
    costs = {weight: nll(weight) for weight in (1.0, 0.0, float(inside))}
    weight = next(weight for weight, cost in costs.items() if cost <= min(costs.values()) + NLL_ROUNDING)
    return Blend(weight, costs[weight], len(labels))


def _no_choice(labels: np.ndarray) -> str | None:
    if not len(labels):
        return "no labelled inner patches"
    return f"the {len(labels)} inner patches are all of class {int(labels[0])}" if labels.min() == labels.max() else None
