"""Blend predictions: the space they are averaged in (probs, logits, ranks), and the weights (equal, fitted, greedy, capped by correlation).

Weights are nested: those that score a part of the patches are fitted without its labels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import NLL_ROUNDING, auroc, spearman
from pcam_ssl.tables import mean_over

PICKS = 50
SMALLEST = 1e-3


def member_weights(method: str, logits, labels, cap: float | None = None) -> np.ndarray:
    """Weights [M], not negative and of sum 1, from calibrated logits [N, M] of class 1 and labels [N] 0 or 1 (both classes).

    `cap`: of two members whose Spearman correlation is above it, the one of lower AUROC gets weight 0; the others are then weighted.
    """
    logits = np.asarray(logits, dtype=np.float64)
    kept = np.arange(logits.shape[1]) if cap is None else np.flatnonzero(under_cap(logits, labels, cap))
    weights = np.zeros(logits.shape[1])
    fit = METHODS[method].fit
    weights[kept] = 1 / len(kept) if fit is None else fit(logits[:, kept], labels)
    return weights


def fitted_weights(logits, labels) -> np.ndarray:
    """The weights [M], not negative and of sum 1, whose mean logit has the least NLL (stacking; Wolpert 1992, Breiman 1996).

    The NLL is convex in the weights. Weights below 0.001 are set to zero and the others are rescaled. Deviation from Breiman, who fits
    squared error with a free sum: the members are calibrated, and with a sum of 1 a blend of equal members equals the member.
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
    """Weights [M] by greedy forward selection with replacement: each member's share of the picks.

    Each pick adds the member that gives the mean logit of all picks the least NLL (Caruana et al. 2004, "Ensemble selection from
    libraries of models"). Of equal members the first is picked; the picks are cut where the NLL was least. Deviation from the paper: no
    random bags of members are drawn.
    """
    logits = np.asarray(logits, dtype=np.float64)
    margins = np.where(np.asarray(labels)[:, None] == 1, logits, -logits).T  # [M, N]
    total, chosen, best, best_size = np.zeros(len(logits)), [], np.inf, 0
    for size in range(1, picks + 1):
        costs = [np.log1p(np.exp(-(total + margin) / size)).mean() for margin in margins]
        # Gains below rounding do not count: of equal members the first is picked, and a single best member gets no company.
        chosen.append(int(np.argmax(np.array(costs) <= min(costs) + NLL_ROUNDING)))
        total += margins[chosen[-1]]
        if costs[chosen[-1]] < best - NLL_ROUNDING:
            best, best_size = costs[chosen[-1]], size
    return np.bincount(chosen[:best_size], minlength=len(margins)) / best_size


@dataclass(frozen=True)
class BlendMethod:
    """A method of `blend --method`."""

    space: str
    """What is averaged: `prob`, `logit` or `rank`, see `pool`."""
    fit: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    """Weights [M] from calibrated logits [N, M] and labels [N]; None: equal weights, which need no labels."""


METHODS = {
    "mean": BlendMethod("prob"),
    "logit-mean": BlendMethod("logit"),
    "rank-mean": BlendMethod("rank"),
    "weights": BlendMethod("logit", fitted_weights),
    "greedy": BlendMethod("logit", greedy_weights),
}
"""By name. To add a method, add a line here, and its name to the help of `--method`."""


def under_cap(logits, labels, cap: float) -> np.ndarray:
    """Which members are kept, bool [M]: from the highest AUROC down, those whose Spearman correlation with all kept ones is at most `cap`."""
    correlations = spearman(logits)
    scores = [auroc(labels, column) for column in np.asarray(logits).T]
    kept: list[int] = []
    for member in sorted(range(len(scores)), key=lambda member: (-scores[member], member)):
        # The correlation with a constant member is NaN, which is above no cap.
        if not any(correlations[member, other] > cap for other in kept):
            kept.append(member)
    return np.isin(np.arange(len(scores)), kept)


GRID = 1001


@dataclass(frozen=True)
class RankScale:
    """Ranks of logits among reference patches, as the share of patches below, linear between up to `GRID` knots.

    Outside the knots the share continues with slope 1 per logit, so that new patches beyond the reference keep their order.
    """

    logits: np.ndarray
    """[G], increasing: the knots."""
    shares: np.ndarray
    """[G], increasing: the share of reference patches below each knot, plus half of those equal to it."""

    def share(self, logits) -> np.ndarray:
        """Shares of logits, [N]."""
        return _interpolated(np.asarray(logits), self.logits, self.shares)

    def logit(self, shares) -> np.ndarray:
        """The logits that have these shares, [N]."""
        return _interpolated(np.asarray(shares), self.shares, self.logits)


def rank_scale(reference) -> RankScale:
    """The scale of reference logits [N]."""
    ordered = np.sort(np.asarray(reference, dtype=np.float64))
    knots = np.unique(np.quantile(ordered, np.linspace(0, 1, GRID), method="lower"))
    below, up_to = (np.searchsorted(ordered, knots, side=side) for side in ("left", "right"))
    return RankScale(knots, (below + up_to) / (2 * len(ordered)))


def pool(space: str, logits, weights, scales: list[RankScale] | None = None) -> np.ndarray:
    """Logits [N] of the blend of members' logits [N, M] under weights [M], not negative and of sum 1.

    `space` is what is averaged. `logit`: logits. `prob`: probs, returned as the logit of their mean (linear opinion pool, Stone 1961).
    `rank`: each member's logits become shares on the member's own scale; the mean share is turned back into a logit by the mean of the
    members' scales, so that a blend of equal members equals the member. `scales` [M] are needed for `rank` only. A single member of
    weight above 0 is returned unchanged.
    """
    logits, weights = np.asarray(logits, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(weights)
    members, weights = [logits[:, member] for member in used], weights[used]
    if len(members) == 1:
        return members[0].copy()
    if space == "logit":
        return mean_over(members, weights)
    if space == "prob":
        # In logs, since 1 - prob loses its digits where a prob is near 1.
        tumor, normal = ([log_expit(sign * logit) for logit in members] for sign in (1, -1))
        return _log_mean(tumor, weights) - _log_mean(normal, weights)
    scales = [scales[member] for member in used]
    shares = mean_over([scale.share(logit) for scale, logit in zip(scales, members, strict=True)], weights)
    return mean_over([scale.logit(shares) for scale in scales], weights)


def _log_mean(logs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Log of the weighted mean of values given as logs, M arrays [N]; summed in the order of the members, as in `mean_over`."""
    return reduce(np.logaddexp, [np.log(weight) + log for weight, log in zip(weights, logs, strict=True)])


def _interpolated(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inside = np.interp(values, x, y)
    return inside + np.maximum(values - x[-1], 0) + np.minimum(values - x[0], 0)


PARTS = 5


@dataclass(frozen=True)
class Blend:
    """Method and weights of a blend. Weights are [M], in the order of the members."""

    method: str
    weights: np.ndarray
    """Fitted on all parts: for new patches."""
    nested: dict[int, np.ndarray]
    """By part: fitted on the labels of the other parts alone; out-of-fold predictions use these."""
    parts: np.ndarray
    """int [N]: the part of each out-of-fold row."""
    unit: str
    """Name of a part: `fold`, or `part` (whole slides) where one fold scores all patches."""

    def out_of_fold(self, logits, scales: list[RankScale]) -> np.ndarray:
        """Blended logits [N] of the out-of-fold rows, each with the nested weights of its part."""
        blended = np.empty(len(logits))
        for part, weights in self.nested.items():
            rows = self.parts == part
            blended[rows] = pool(METHODS[self.method].space, logits[rows], weights, scales)
        return blended


def fit_blend(method: str, logits, labels, parts, usable, unit: str, cap: float | None = None) -> Blend:
    """Fit final and nested weights to calibrated out-of-fold logits [N, M] of class 1.

    `labels` [N] 0 or 1, `parts` int [N], `usable` bool [N]: rows whose label may be used for fitting. Raises UserError where a method
    needs labels and those outside a part are of one class, or where there is one part only.
    """
    logits, labels, parts, usable = (np.asarray(values) for values in (logits, labels, parts, usable))

    def weights(rows: np.ndarray, where: str) -> np.ndarray:
        if (METHODS[method].fit or cap is not None) and len(np.unique(labels[rows])) < 2:
            raise UserError(
                f"--method {method}: the labels {where} are all of one class, so nothing can be fitted; use --method mean without --max-correlation"
            )
        return member_weights(method, logits[rows], labels[rows], cap)

    numbers = sorted(set(parts.tolist()))
    if len(numbers) < 2 and (METHODS[method].fit or cap is not None):
        raise UserError(f"--method {method}: there is one slide only, so none is left to fit weights on; use --method mean")
    nested = {part: weights(usable & (parts != part), f"outside {unit} {part}") for part in numbers}
    return Blend(method, weights(usable, "of all patches"), nested, parts, unit)


def parts_of(folds, groups) -> tuple[np.ndarray, str]:
    """The part of each row, int [N], over which weights are nested, and the name of a part.

    Parts are the `folds` [N]. Where there is one fold only they are up to five parts of whole `groups` [N]: the largest group first,
    each into the smallest part so far.
    """
    folds = np.asarray(folds, dtype=np.int64)
    if len(np.unique(folds)) > 1:
        return folds, "fold"
    codes, names = pd.factorize(np.asarray(groups, dtype=object), sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    part_of, filled = np.empty(len(names), dtype=np.int64), np.zeros(min(PARTS, len(names)))
    for group in np.argsort(-sizes, kind="stable"):
        part_of[group] = np.argmin(filled)
        filled[part_of[group]] += sizes[group]
    return part_of[codes], "part"


def rank_scales(logits) -> list[RankScale]:
    """The rank scale of each member, from out-of-fold logits [N, M]; no labels are used."""
    return [rank_scale(column) for column in np.asarray(logits).T]
