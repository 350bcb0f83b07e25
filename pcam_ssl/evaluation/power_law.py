"""A power law through scores by budget, 1 - AUROC = a + b n^-c, and what it says beyond the largest budget.

Learning curves of many methods follow this law (Hestness et al. 2017, arXiv:1712.00409; for histopathology and other medical images
Figueroa et al. 2012). With a = 0 it is a straight line in log n, fitted by weighted least squares. The error `a` that no number of
labels removes is fitted only where four or more budgets show it: where it lowers the weighted sum of squares by more than 3.84, the 95 %
point of chi-squared with one degree of freedom. Intervals come from the same fit to the scores of every resample of the slides.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam_ssl.evaluation.confidence import Groups, summed_half_width

FEWEST_BUDGETS = 3
FEWEST_FOR_FLOOR = 4
TOLD = 3.84
LEAST_ERROR = 1e-4
"""Smaller errors count as this one: the logarithm of 0 is not defined."""
SHARES = np.linspace(0, 0.95, 39)[1:]
"""Values of `a` that are tried, as shares of the smallest error."""


@dataclass(frozen=True)
class PowerLaws:
    """One law for each row of scores: all arrays are [R]."""

    a: np.ndarray
    log_b: np.ndarray
    c: np.ndarray
    misfit: np.ndarray
    """Weighted sum of squared residuals of log(error - a)."""

    def auroc(self, n: float) -> np.ndarray:
        """AUROC [R] at budget `n`."""
        return 1 - self.a - np.exp(self.log_b - self.c * np.log(n))

    def slope(self, n: float) -> np.ndarray:
        """Gain in AUROC for each doubling, [R], by the tangent at budget `n`."""
        return np.log(2) * self.c * np.exp(self.log_b - self.c * np.log(n))


def log_variances(aurocs: np.ndarray) -> np.ndarray:
    """Variance of the log of the mean error at each budget, [B], from the AUROC of each draw, [S, B]; equal with one draw.

    Few draws estimate a variance badly, so each is averaged with the mean over budgets.
    """
    n_draws, n_budgets = aurocs.shape
    if n_draws < 2:
        return np.ones(n_budgets)
    errors = np.maximum(1 - aurocs, LEAST_ERROR)
    own = errors.var(axis=0, ddof=1) / n_draws / errors.mean(axis=0) ** 2
    return (own + own.mean()) / 2 if own.any() else np.ones(n_budgets)


def fit_power_law(n, aurocs, variances, floor: bool = False) -> PowerLaws:
    """The laws of AUROCs [R, B] at budgets `n` [B], weighted by 1 / `variances` [B] of the log error; `a` is 0 unless `floor`."""
    x, errors = np.log(np.asarray(n, np.float64)), np.maximum(1 - np.atleast_2d(aurocs), LEAST_ERROR)
    best = _line(x, errors, np.zeros(len(errors)), variances)
    if floor:
        for share in SHARES:
            other = _line(x, errors, share * errors.min(axis=1), variances)
            better = other.misfit < best.misfit
            pairs = [(getattr(other, name), getattr(best, name)) for name in ("a", "log_b", "c", "misfit")]
            best = PowerLaws(*(np.where(better, new, old) for new, old in pairs))
    return best


def floor_is_told(n, aurocs, variances, n_draws: int) -> bool:
    """Whether the mean AUROCs [B] show an error that no number of labels removes. One draw does not: its spread is unknown."""
    if len(n) < FEWEST_FOR_FLOOR or n_draws < 2:
        return False
    plain, bent = (fit_power_law(n, aurocs, variances, floor).misfit[0] for floor in (False, True))
    return bool(plain - bent > TOLD)


def _line(x: np.ndarray, errors: np.ndarray, a: np.ndarray, variances: np.ndarray) -> PowerLaws:
    left = errors - a[:, None]
    # The variance of log(error - a) grows as a comes close to the error.
    weights = (left / errors) ** 2 / variances
    y, total = np.log(left), weights.sum(axis=1)
    middle_x, middle_y = (weights * x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
    dx, dy = x - middle_x[:, None], y - middle_y[:, None]
    slope = (weights * dx * dy).sum(axis=1) / (weights * dx**2).sum(axis=1)
    misfit = (weights * (dy - slope[:, None] * dx) ** 2).sum(axis=1)
    return PowerLaws(a, middle_y - slope * middle_x, -slope, misfit)


@dataclass(frozen=True)
class FittedCurve:
    """The law of the mean over draws, those of every resample of the slides, and those of every draw, all of one form."""

    mean: PowerLaws
    resampled: PowerLaws
    draws: PowerLaws
    groups: Groups
    floor: bool

    def interval(self, value, further: tuple[tuple[float, float], ...] = ()) -> dict[str, Any]:
        """{"value", "low", "high"} of `value(laws)` [R]: over slides and, with two or more draws, over draws. Without `low` a `reason`.

        `further`: variances with their degrees of freedom, that are added.
        """
        return interval_over(*(value(laws) for laws in (self.mean, self.resampled, self.draws)), self.groups, further)


def interval_over(
    mean: np.ndarray, resampled: np.ndarray, draws: np.ndarray, groups: Groups, further: tuple[tuple[float, float], ...] = ()
) -> dict[str, Any]:
    """{"value", "low", "high"} of a value: `mean` [1], in each resample of the slides [R] and in each draw [S]. Without `low` a `reason`.

    Variances are added: that of resampled slides, that of a mean of S draws, and `further` ones, each with its degrees of freedom.
    """
    value = float(mean[0])
    if len(resampled) < 2:
        return {"value": value, "low": None, "high": None, "reason": "fewer than two slides hold the rarer class"}
    parts = [(float(resampled.var(ddof=1)) * groups.correction, groups.freedom)]
    if len(draws) > 1:
        parts.append((float(draws.var(ddof=1)) / len(draws), len(draws) - 1))
    half = summed_half_width([*parts, *further])
    return {"value": value, "low": value - half, "high": value + half}


def fit_curve(n, aurocs: np.ndarray, drawn: np.ndarray, groups: Groups, floor: bool | None = None) -> FittedCurve:
    """The law at budgets `n` [B] of AUROCs by draw [S, B], and of their means in every resample of the slides, `drawn` [R, B].

    `floor`: whether `a` is fitted; None: where the scores show it.
    """
    variances, mean = log_variances(aurocs), aurocs.mean(axis=0)
    floor = floor_is_told(n, mean, variances, len(aurocs)) if floor is None else floor
    return FittedCurve(*(fit_power_law(n, each, variances, floor) for each in (mean, drawn, aurocs)), groups, floor)


def beyond(n, aurocs: np.ndarray, drawn: np.ndarray, groups: Groups) -> dict[str, Any]:
    """What the law says at the largest budget and at twice that, as JSON values.

    `fit`: a, b, c; `slope`: gain in AUROC for each doubling, by the tangent; `doubled`: `n`, `auroc`, `gain`, whether the gain is `told`, and
    `why` where it is not. All None, and a `reason`, with fewer than three budgets.
    """
    if len(n) < FEWEST_BUDGETS:
        few = f"{len(n)} budget{'s' if len(n) > 1 else ''}: a curve needs {FEWEST_BUDGETS} or more"
        return {"fit": None, "slope": None, "doubled": None, "reason": few}
    curve, last = fit_curve(n, aurocs, drawn, groups), float(n[-1])
    law = curve.mean
    gain = curve.interval(lambda laws: laws.auroc(2 * last) - laws.auroc(last))
    why = untold(gain, 1 - float(law.auroc(last)[0]))
    return {
        "fit": {"a": float(law.a[0]), "b": float(np.exp(law.log_b[0])), "c": float(law.c[0]), "floor_fitted": curve.floor},
        "slope": curve.interval(lambda laws: laws.slope(last)),
        "doubled": {
            "n": 2 * last,
            "auroc": _within_1(curve.interval(lambda laws: laws.auroc(2 * last))),
            "gain": gain,
            "told": why is None,
            "why": why,
        },
        "reason": None,
    }


def _within_1(score: dict[str, Any]) -> dict[str, Any]:
    """An AUROC whose interval ends at 1 at the latest."""
    return score if score["low"] is None else {**score, "high": min(score["high"], 1.0)}


def untold(gain: dict[str, Any], left: float) -> str | None:
    """Why a gain cannot be told, None where it can. `left` is the error at the largest budget, the most that can be gained."""
    if gain["low"] is None:
        return gain["reason"]
    if gain["low"] <= 0 <= gain["high"]:
        return "its interval includes 0"
    if gain["high"] - gain["low"] > left:
        return f"its interval is wider than all that is left to gain ({left:.3f})"
    return None


def foretold(n, aurocs: np.ndarray, drawn: np.ndarray, groups: Groups) -> dict[str, Any] | None:
    """The AUROC at the largest budget as the law of the smaller ones predicts it, `predicted`, and what was seen above that, `miss`.

    None with fewer than four budgets.
    """
    if len(n) <= FEWEST_BUDGETS:
        return None
    curve = fit_curve(n[:-1], aurocs[:, :-1], drawn[:, :-1], groups)
    laws = (curve.mean, curve.resampled, curve.draws)
    seen = (aurocs.mean(axis=0)[None, -1], drawn[:, -1], aurocs[:, -1])
    predicted = [law.auroc(float(n[-1])) for law in laws]
    misses = (there - told for there, told in zip(seen, predicted, strict=True))
    return {"predicted": float(predicted[0][0]), "seen": float(seen[0][0]), "miss": interval_over(*misses, groups)}
