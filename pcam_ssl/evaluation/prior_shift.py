"""A pool with another share of tumor than the training patches: its share by EM, and probs for that share (Saerens et al. 2002)."""

import numpy as np
from scipy.special import expit

from pcam_ssl.tables import calibrated_logits

TOLERANCE = 1e-6
MOST_STEPS = 1000
LEAST_TOLD = 0.05
"""`told`, for EM to be used: an AUROC of about 0.63. The standard error of a share is there 4.5 times that of counted labels."""
SMALLEST = 1e-6
"""Shares are kept this far from 0 and 1, so that their log-odds are finite."""


def em_prior(probs: np.ndarray, prior: float, tolerance: float = TOLERANCE, most_steps: int = MOST_STEPS) -> float:
    """The share of class 1 among patches whose calibrated probs `[N]` hold for a share of `prior` (in (0, 1)); N is 1 or more.

    Expectation maximisation of Saerens, Latinne, Decaestecker 2002 (Adjusting the outputs of a classifier to new a priori probabilities):
    the share is the mean of the probs shifted to that share. It assumes that patches of a class look alike in both sets. Ends
    after `most_steps` steps, or where a step changes the share by less than `tolerance`. The order of the probs does not matter.
    """
    logits = np.sort(calibrated_logits(probs))
    share, start = _inside(prior), log_odds(prior)
    for _ in range(most_steps):
        before, share = share, _inside(float(expit(logits + log_odds(share) - start).mean()))
        if abs(share - before) < tolerance:
            break
    return share


def told(labels: np.ndarray, probs: np.ndarray) -> float:
    """How much probs `[N]` tell of the `labels` `[N]` of patches that were not learned from: the part of the labels' variance that they explain.

    This is the Brier skill score (Brier 1950): 1 where probs are the labels, 0 where they are no better than the mean label, negative where
    worse; 0 for labels of one class. Where it is near 0, the likelihood of a pool's share is flat, and EM can end at any share.
    """
    labels, probs = (np.asarray(each, dtype=np.float64) for each in (labels, probs))
    variance = float(labels.var()) if len(labels) else 0.0
    return 1 - float(np.mean((labels - probs) ** 2)) / variance if variance else 0.0


def shifted(probs: np.ndarray, prior: float, share: float) -> np.ndarray:
    """Probs `[N]` that hold for a share of `prior`, for a share of `share`; float64 `[N]`."""
    return expit(calibrated_logits(probs) + log_odds(share) - log_odds(prior))


def log_odds(share: float) -> float:
    """log(share / (1 - share)), finite."""
    share = _inside(share)
    return float(np.log(share) - np.log1p(-share))


def _inside(share: float) -> float:
    return min(max(share, SMALLEST), 1 - SMALLEST)
