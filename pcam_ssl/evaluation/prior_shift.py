"""A pool with another share of tumor than the training patches: its share by EM, and probs for that share (Saerens et al. 2002)."""

import numpy as np
from scipy.special import expit

from pcam_ssl.tables import calibrated_logits

TOLERANCE = 1e-6
MOST_STEPS = 1000
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


def resolution(probs: np.ndarray, prior: float) -> float:
    """How much calibrated probs `[N]` tell of the classes: the part of the variance `prior` (1 - `prior`) that they explain, 0 (nothing) to 1.

    At a share of `prior` it is also the information on the share that a patch gives, as a part of what its label would give. Near 0 the
    likelihood of EM is flat, and its share can be anything. (Murphy 1973 calls it the resolution of forecasts.)
    """
    return float(np.mean((np.asarray(probs, dtype=np.float64) - prior) ** 2) / (prior * (1 - prior)))


def shifted(probs: np.ndarray, prior: float, share: float) -> np.ndarray:
    """Probs `[N]` that hold for a share of `prior`, for a share of `share`; float64 `[N]`."""
    return expit(calibrated_logits(probs) + log_odds(share) - log_odds(prior))


def log_odds(share: float) -> float:
    """log(share / (1 - share)), finite."""
    share = _inside(share)
    return float(np.log(share) - np.log1p(-share))


def _inside(share: float) -> float:
    return min(max(share, SMALLEST), 1 - SMALLEST)
