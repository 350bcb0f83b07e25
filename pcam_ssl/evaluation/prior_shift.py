"""The share of tumor among patches without labels, from calibrated probs."""

import numpy as np


def em_prior(probs: np.ndarray, prior: float, tolerance: float = 1e-6, most_steps: int = 1000) -> float:
    """The share of class 1 among patches of calibrated `probs` `[N]`; `prior` is its share where the probs were calibrated.

    Expectation maximisation of Saerens, Latinne and Decaestecker 2002: probs are moved to the share so far, and their mean is the next
    share. It assumes that patches of one class look the same in both places.
    """
    probs, share = np.asarray(probs, dtype=np.float64), float(prior)
    for _ in range(most_steps):
        tumor, normal = probs * share / prior, (1 - probs) * (1 - share) / (1 - prior)
        fresh = float(np.mean(tumor / (tumor + normal)))
        if abs(fresh - share) < tolerance:
            return fresh
        share = fresh
    return share
