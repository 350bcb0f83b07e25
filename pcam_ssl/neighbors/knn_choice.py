"""k, temperature, and the share of kNN in a blend, chosen on inner slides by NLL. No torch."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from pcam_ssl.evaluation.metrics import NLL_ROUNDING
from pcam_ssl.neighbors.knn import TEMPERATURE, K, binary_nll, knn_logits

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
