"""One prediction from several: pooled as probs, as logits, or as ranks. Each patch's answer depends on that patch alone. No torch."""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_expit, logsumexp

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
    average of the members' scales, so that a blend of equal members is that member. `scales` [M] serve `rank` alone.
    """
    logits, weights = np.asarray(logits, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(weights)
    logits, weights = logits[:, used], weights[used]
    if space == "logit":
        return logits @ weights
    if space == "prob":
        # From logs, since 1 - prob has lost its digits where a prob is near 1.
        return logsumexp(log_expit(logits), b=weights, axis=1) - logsumexp(log_expit(-logits), b=weights, axis=1)
    scales = [scales[member] for member in used]
    shares = np.stack([scale.share(column) for scale, column in zip(scales, logits.T, strict=True)], axis=1) @ weights
    return np.stack([scale.logit(shares) for scale in scales], axis=1) @ weights


def _interpolated(values: np.ndarray, known: np.ndarray, answers: np.ndarray) -> np.ndarray:
    inside = np.interp(values, known, answers)
    return inside + np.maximum(values - known[-1], 0) + np.minimum(values - known[0], 0)
