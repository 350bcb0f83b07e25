"""Weights of a blend's members from labelled patches: equal, fitted, or greedy, under a cap on correlation. No torch."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pcam_ssl.blending.inference_blend import mean_over
from pcam_ssl.evaluation.metrics import NLL_ROUNDING, auroc
from pcam_ssl.inference.correlation import spearman

SPACES = {"mean": "prob", "logit-mean": "logit", "rank-mean": "rank", "weights": "logit", "greedy": "logit"}
"""What each method averages."""
FITTED = ("weights", "greedy")
PICKS = 50
SMALLEST = 1e-3


def member_weights(method: str, logits, labels, cap: float | None = None) -> np.ndarray:
    """Weights [M], not negative, sum 1, from calibrated logits [N, M] of class 1 and labels [N] 0 or 1 (both classes).

    `cap`: of two members with a Spearman correlation above it the one of lower AUROC gets weight 0, before anything else.
    """
    logits = np.asarray(logits, dtype=np.float64)
    kept = np.arange(logits.shape[1]) if cap is None else np.flatnonzero(under_cap(logits, labels, cap))
    weights = np.zeros(logits.shape[1])
    if method == "weights":
        weights[kept] = fitted_weights(logits[:, kept], labels)
    elif method == "greedy":
        weights[kept] = greedy_weights(logits[:, kept], labels)
    else:
        weights[kept] = 1 / len(kept)
    return weights


def fitted_weights(logits, labels) -> np.ndarray:
    """The weights [M], not negative and of sum 1, whose mean logit has the least NLL (stacking; Wolpert 1992, Breiman 1996).

    The NLL is convex in the weights. Below 0.001 a weight is set to zero and the others are scaled up. Breiman leaves the sum free
    and fits squared error; here the members are calibrated already, and a sum of 1 keeps a blend of equal members what they are.
    """
    logits = np.asarray(logits, dtype=np.float64)
    labels, n_members = np.asarray(labels, dtype=np.float64), logits.shape[1]
    if n_members == 1:
        return np.ones(1)
    members = list(np.ascontiguousarray(logits.T))

    def nll(weights):
        mixed = mean_over(members, weights)
        errors = expit(mixed) - labels
        return np.mean(np.logaddexp(0, mixed) - labels * mixed), np.array([np.mean(errors * member) for member in members])

    found = minimize(
        nll,
        np.full(n_members, 1 / n_members),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * n_members,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1, "jac": lambda weights: np.ones(n_members)},
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights = np.where(found.x < SMALLEST, 0, found.x)
    return weights / weights.sum()


def greedy_weights(logits, labels, picks: int = PICKS) -> np.ndarray:
    """Shares [M] of the picks: each pick adds the member whose mean logit with those before has the least NLL, any member again.

    Forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models"); of equal members the
    first is picked, and of all prefixes of `picks` the one of least NLL is kept. Unlike the paper no random bags of members are drawn.
    """
    logits = np.asarray(logits, dtype=np.float64)
    margins = np.where(np.asarray(labels)[:, None] == 1, logits, -logits).T  # [M, N]
    total, chosen, best, best_size = np.zeros(len(logits)), [], np.inf, 0
    for size in range(1, picks + 1):
        costs = [np.log1p(np.exp(-(total + margin) / size)).mean() for margin in margins]
        # A later member, and a later pick, must gain more than rounding: of equal members the first is taken, and a lone best stays alone.
        chosen.append(int(np.argmax(np.array(costs) <= min(costs) + NLL_ROUNDING)))
        total += margins[chosen[-1]]
        if costs[chosen[-1]] < best - NLL_ROUNDING:
            best, best_size = costs[chosen[-1]], size
    return np.bincount(chosen[:best_size], minlength=len(margins)) / best_size


def under_cap(logits, labels, cap: float) -> np.ndarray:
    """Which members stay, bool [M]: from the best AUROC down, each whose Spearman correlation with all that stay is at most `cap`."""
    likeness = spearman(logits)
    scores = [auroc(labels, column) for column in np.asarray(logits).T]
    stay: list[int] = []
    for member in sorted(range(len(scores)), key=lambda member: (-scores[member], member)):
        # NaN, of a constant member, is above no cap.
        if not any(likeness[member, other] > cap for other in stay):
            stay.append(member)
    return np.isin(np.arange(len(scores)), stay)
