"""One prediction from several: pooled as probs, as logits, or as ranks. Each patch's answer depends on that patch alone. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.special import log_expit

GRID = 1001


@dataclass(frozen=True)
class RankScale:
    """Where a logit stands among reference patches: the share of them below it, linear between up to `GRID` known logits.

    Beyond the last known logit a share runs on, one for one logit, so that new patches outside the reference keep their order.
    """

    logits: np.ndarray
    """[G], rising."""
    shares: np.ndarray
    """[G], rising: the reference patches below, and half of those equal."""

    def share(self, logits) -> np.ndarray:
        """Shares of logits, [N]."""
        return _interpolated(np.asarray(logits), self.logits, self.shares)

    def logit(self, shares) -> np.ndarray:
        """The logits that have these shares, [N]."""
        return _interpolated(np.asarray(shares), self.shares, self.logits)


def rank_scale(reference) -> RankScale:
    """The scale of reference logits [N]."""
    rising = np.sort(np.asarray(reference, dtype=np.float64))
    known = np.unique(np.quantile(rising, np.linspace(0, 1, GRID), method="lower"))
    below, through = (np.searchsorted(rising, known, side=side) for side in ("left", "right"))
    return RankScale(known, (below + through) / (2 * len(rising)))


def pool(space: str, logits, weights, scales: list[RankScale] | None = None) -> np.ndarray:
    """Logits [N] of the blend of members' logits [N, M] under weights [M] that are not negative and sum to 1.

    `space` is what is averaged: `logit`; `prob` (the answer is the logit of the mean prob, Stone 1961's opinion pool); or `rank`:
    each member's logit becomes its share on the member's own scale, shares are averaged, and the mean share is read back on the
    average of the members' scales, so that a blend of equal members is that member. `scales` [M] serve `rank` alone. A lone member
    of weight above 0 comes back as it is.
    """
    logits, weights = np.asarray(logits, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(weights)
    members, weights = [logits[:, member] for member in used], weights[used]
    if len(members) == 1:
        return members[0].copy()
    if space == "logit":
        return mean_over(members, weights)
    if space == "prob":
        # From logs, since 1 - prob has lost its digits where a prob is near 1.
        tumor, normal = ([log_expit(sign * logit) for logit in members] for sign in (1, -1))
        return _log_mean(tumor, weights) - _log_mean(normal, weights)
    scales = [scales[member] for member in used]
    shares = mean_over([scale.share(logit) for scale, logit in zip(scales, members, strict=True)], weights)
    return mean_over([scale.logit(shares) for scale in scales], weights)


def mean_over(members: Sequence, weights=None) -> np.ndarray:
    """The mean of M arrays of equal shape, float64 of that shape, under weights [M] of sum 1, or plain.

    Summed array by array, so that each place is summed in the order of the members: a matrix product and numpy's reductions sum a
    row alone in another order than among others, and the product's order differs between CPUs.
    """
    members = [np.asarray(values, dtype=np.float64) for values in members]
    if weights is None:
        return reduce(np.add, members) / len(members)
    return reduce(np.add, [weight * values for weight, values in zip(weights, members, strict=True)])


def _log_mean(logs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Log of the weighted mean of what has these logs, M arrays [N]; summed in the order of the members, as in `mean_over`."""
    return reduce(np.logaddexp, [np.log(weight) + log for weight, log in zip(weights, logs, strict=True)])


def _interpolated(values: np.ndarray, known: np.ndarray, answers: np.ndarray) -> np.ndarray:
    inside = np.interp(values, known, answers)
    return inside + np.maximum(values - known[-1], 0) + np.minimum(values - known[0], 0)
