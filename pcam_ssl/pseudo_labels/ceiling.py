"""What the labels that are there give a linear head, and what at most the true labels of the pool could bring.

Heads are fitted on nested smaller budgets of the labels, and a power law goes through their scores.

All heads are scored out of fold: scale, C and weights of a fold's heads come from its training labels alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from pcam_ssl.evaluation.bootstrap import resampled_auroc
from pcam_ssl.evaluation.confidence import Groups, count_groups, group_codes, summed_half_width
from pcam_ssl.evaluation.metrics import auroc, nll
from pcam_ssl.evaluation.power_law import FEWEST_BUDGETS, FittedCurve, fit_curve
from pcam_ssl.training.logistic import LogisticRegressions, Problems, Solution

SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""The budgets, as shares of a fold's labels."""
DRAWS = 10
RESAMPLES = 500
"""Only the spread of the resampled slides is used, which 500 of them tell to 3 %."""
PRODUCTS = tuple(10.0 ** (power / 2) for power in range(-1, 4))
"""The values of C x D that are tried, as in `cross_validation.linear_heads` but for its ends."""
STEPS, TOLERANCE = 100, 1e-7
"""The AUROC of a head does not change beyond its fourth decimal after that."""


@dataclass(frozen=True)
class FoldHeads:
    """The heads of one fold.

    `labels` is the number of labels of each budget `[B]`; `logits` `[S, B, n]` are those of the fold's scored patches in each draw, and
    `learned` `[N]` those of its training patches by heads that did not learn from them. `weight` `[D]`, `bias`, `mean` and `std` `[D]` are
    the head on all labels.
    """

    labels: np.ndarray
    logits: np.ndarray
    learned: np.ndarray
    c: float
    weight: torch.Tensor
    bias: float
    mean: torch.Tensor
    std: torch.Tensor

    def logits_of(self, features: torch.Tensor) -> np.ndarray:
        """Logits `[n]` of features `[n, D]` by the head on all labels."""
        return (((features - self.mean) / self.std) @ self.weight + self.bias).numpy()


def fit_fold(
    features: torch.Tensor, labels: np.ndarray, parts: np.ndarray, scored: torch.Tensor, seed: tuple[int, ...]
) -> FoldHeads:
    """Heads on nested budgets of a fold's labels.

    `features` `[N, D]` float32, `labels` `[N]` 0 or 1 and `parts` `[N]` (slides of one part are scored by heads that did not see them) are
    those of the training patches, `scored` `[n, D]` the features of the scored ones. C is that of the lowest loss on the left-out parts, and
    all budgets share it.
    """
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 1e-6, std, 1.0)
    features, scored = (features - mean) / std, (scored - mean) / std
    regressions = LogisticRegressions(features)
    cs = [product / features.shape[1] for product in PRODUCTS]
    numbers = np.unique(parts)
    crossed = np.stack([parts != number for number in numbers])
    found = _fit(regressions, labels, crossed, [(row, c) for row in range(len(numbers)) for c in cs])
    logits = _logits(found, features).reshape(len(labels), len(numbers), len(cs))
    left_out = logits[np.arange(len(labels)), np.searchsorted(numbers, parts)]  # [N, len(cs)]
    losses = [nll(labels, expit(column)) for column in left_out.T]
    best = int(np.argmin(losses))

    sizes = budgets(labels)
    smaller = [order < size for order in draws(labels, seed) for size in sizes[:-1]]
    # The head on all labels is the same in every draw.
    sets = np.stack([*smaller, np.ones(len(labels), bool)])
    found = _fit(regressions, labels, sets, [(row, cs[best]) for row in range(len(sets))])
    logits = _logits(found, scored).T
    own = logits[:-1].reshape(DRAWS, len(sizes) - 1, len(scored))
    logits = np.concatenate([own, np.broadcast_to(logits[-1], (DRAWS, 1, len(scored)))], axis=1)
    return FoldHeads(sizes, logits, left_out[:, best], cs[best], found.weight[-1].float(), float(found.bias[-1]), mean, std)


def budgets(labels: np.ndarray) -> np.ndarray:
    """Numbers of labels `[B]`: `SHARES` of the labels `[N]`, from the smallest that holds both classes in every draw."""
    rarer = min(np.mean(labels == label) for label in (0, 1))
    sizes = np.array([round(share * len(labels)) for share in SHARES])
    return sizes[sizes * rarer >= 1]


def draws(labels: np.ndarray, seed: tuple[int, ...]) -> list[np.ndarray]:
    """The place `[N]` of each patch in `DRAWS` orders: the first n of an order are a budget of n, in which each class has its share."""
    orders = []
    for draw in range(DRAWS):
        rng = np.random.default_rng((*seed, draw))
        places = np.empty(len(labels))
        for label in (0, 1):
            own = np.flatnonzero(labels == label)
            places[own] = (rng.permutation(len(own)) + 0.5) / len(own)
        orders.append(np.argsort(np.argsort(places, kind="stable"), kind="stable"))
    return orders


def _fit(regressions: LogisticRegressions, labels: np.ndarray, sets: np.ndarray, pairs: list[tuple[int, float]]) -> Solution:
    """Heads on `sets` bool `[J, N]`; `pairs` are a set and a C."""
    targets = torch.from_numpy(np.broadcast_to(labels, sets.shape).astype(np.float64))
    problems = Problems(torch.from_numpy(sets.astype(np.float64)), targets, [each for each, _ in pairs], [c for _, c in pairs])
    return regressions.fit(problems, max_steps=STEPS, tolerance=TOLERANCE)


def _logits(found: Solution, features: torch.Tensor) -> np.ndarray:
    """Logits `[N, P]` of features `[N, D]`."""
    return (features.to(found.weight) @ found.weight.T + found.bias).numpy()


@dataclass(frozen=True)
class Ceiling:
    """The scores of the heads over all folds' scored patches, and the law through them.

    `budgets` `[B]` are labels (means over folds) and `aurocs` `[S, B]` by draw. `drawn` `[S, B, R]` are the same in every resample of the slides. `probs`
    `[n]` are those of the heads on all labels. `curve` is None with fewer than three budgets.
    """

    budgets: np.ndarray
    aurocs: np.ndarray
    drawn: np.ndarray
    probs: np.ndarray
    groups: Groups
    curve: FittedCurve | None

    def gain(self, labels: float, more: float) -> dict[str, Any]:
        """{"value", "low", "high"} of the AUROC with `more` labels beyond `labels`, minus that with `labels`. Without `low` a `reason`.

        The interval covers the slides that score, the draws, and the luck of the labels that are there: as many others would have given
        another AUROC. That luck shifts all budgets alike, so the curve does not show it, and more labels take it away.
        """
        luck = luck_variance(self.budgets, self.aurocs) * self.budgets[-1] / labels * more / (labels + more)
        return self.curve.interval(lambda laws: laws.auroc(labels + more) - laws.auroc(labels), ((luck, DRAWS - 1),))

    @property
    def resolvable(self) -> float | None:
        """Half the paired 95 % interval of a change as large as from half of the labels to all; None where slides show no spread."""
        change = self.drawn[:, -1] - self.drawn[:, -2]  # [S, R]
        if change.shape[1] < 2:
            return None
        # The mean variance of single pairs: rounds too are compared as one run with another.
        return summed_half_width([(float(change.var(axis=1, ddof=1).mean()) * self.groups.correction, self.groups.freedom)])


def luck_variance(budgets: np.ndarray, aurocs: np.ndarray) -> float:
    """Variance of the AUROC between sets of labels as large as the last of `budgets` `[B]`, from draws `[S, B]` out of one such set.

    Where the variance falls as 1 / n, draws of m out of the same n labels have that of n times n / m - 1.
    """
    last = budgets[-1]
    within = aurocs[:, :-1].var(axis=0, ddof=1)
    return float(np.mean(within * budgets[:-1] / (last - budgets[:-1])))


def score_heads(heads: list[FoldHeads], labels: np.ndarray, groups, seed: int) -> Ceiling:
    """The ceiling from the heads of all folds. `labels` `[n]` and `groups` `[n]` (slides that are resampled, or None) of their scored patches, fold by fold."""
    n_budgets = min(len(each.labels) for each in heads)
    sizes = np.mean([each.labels[-n_budgets:] for each in heads], axis=0)
    probs = expit(np.concatenate([each.logits[:, -n_budgets:] for each in heads], axis=2))  # [S, B, n]
    aurocs = np.array([[auroc(labels, each) for each in draw] for draw in probs])
    several = [*probs[:, :-1].reshape(-1, len(labels)), probs[0, -1]]
    resampled = resampled_auroc(labels, several, groups, RESAMPLES, seed)
    resampled = resampled[:, ~np.isnan(resampled).any(axis=0)]
    smaller = resampled[:-1].reshape(DRAWS, n_budgets - 1, -1)
    drawn = np.concatenate([smaller, np.broadcast_to(resampled[-1], (DRAWS, 1, resampled.shape[1]))], axis=1)
    counted = count_groups(group_codes(groups, len(labels)), labels)
    # An error that no label removes cannot be told from the luck of these labels, which all budgets share. Without it the law says more, not less.
    curve = fit_curve(sizes, aurocs, drawn.mean(0).T, counted, floor=False) if n_budgets >= FEWEST_BUDGETS else None
    return Ceiling(sizes, aurocs, drawn, probs[0, -1], counted, curve)
