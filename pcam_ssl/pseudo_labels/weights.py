"""How much a pseudo-label counts in the loss. No torch."""

from math import fsum

import numpy as np


def pseudo_weights(probs, rule: str, scale: float = 1.0) -> np.ndarray:
    """Weight of each patch of the pool by its calibrated `probs` [N], were it added; a true label has weight 1."""
    probs = np.asarray(probs, dtype=np.float64)
    return scale * {"constant": np.ones_like, "confidence": confidence_weights, "softmatch": softmatch_weights}[rule](probs)


def confidence_weights(probs: np.ndarray) -> np.ndarray:
    """2 |prob - 0.5|: 0 for a coin, 1 for certainty; [N]."""
    return 2 * np.abs(probs - 0.5)


def softmatch_weights(probs: np.ndarray) -> np.ndarray:
    """SoftMatch (Chen et al. 2023, arXiv:2301.10921): a Gaussian of the confidence max(prob, 1 - prob), cut off at its mean; [N].

    1 from the mean upward, exp(-(confidence - mean)^2 / (2 variance)) below. Mean and variance are those of the whole pool, which
    a round knows; the paper follows them by moving averages over batches, and the same for both classes.
    """
    sure = np.maximum(probs, 1 - probs)
    if not len(sure) or sure.min() == sure.max():
        return np.ones_like(sure)
    # Exact sums, for the weights of a shuffled pool must not differ in their last bit.
    mean = fsum(sure) / len(sure)
    variance = fsum((sure - mean) ** 2) / len(sure)
    return np.exp(-(np.minimum(sure - mean, 0) ** 2) / (2 * variance))
