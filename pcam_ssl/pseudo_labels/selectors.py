"""Selectors that judge each patch by itself. No torch.

Every selector takes the pool as `sureness.rated` gives it and `stays` bool [N], the candidates so far, and returns reasons: str [N],
empty for what stays and for what was no candidate.
"""

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.pseudo_labels.thresholds import Threshold, rounded_down


def precision(pool: pd.DataFrame, stays: np.ndarray, thresholds: dict[int, Threshold], target: float) -> np.ndarray:
    """Leaves out what is not beyond the threshold of its class (`precision_thresholds`)."""
    reasons = nothing_said(len(pool))
    for label, threshold in thresholds.items():
        out = stays & (pool.called == label).to_numpy() & ~threshold.beyond(pool.prob)
        if threshold.prob is None:
            reasons[out] = f"no threshold proves a precision of {target:g} for {CLASSES[label]}{_best(threshold)}"
            continue
        side = "below" if label else "above"
        end = f"is {side} {threshold.prob:.4g}, from where a precision of {target:g} is proven for {CLASSES[label]}"
        say(reasons, out, pool.prob, "prob {:.4g} " + end)
    return reasons


def confidence(pool: pd.DataFrame, stays: np.ndarray, tau: float) -> np.ndarray:
    """Leaves out prob from 1 - `tau` to `tau`, both ends included."""
    reasons = nothing_said(len(pool))
    out = stays & ((pool.prob <= tau) & (pool.prob >= 1 - tau)).to_numpy()
    say(reasons, out, pool.prob, "prob {:.4g} " + f"is between {1 - tau:.4g} and {tau:.4g} (pseudo.confidence)")
    return reasons


def view_std(pool: pd.DataFrame, stays: np.ndarray, most: float) -> np.ndarray:
    """Leaves out patches whose logits have a standard deviation over views above `most`."""
    reasons = nothing_said(len(pool))
    say(
        reasons,
        stays & (pool.view_std > most).to_numpy(),
        pool.view_std,
        "views differ by {:.4g}, " + f"above {most:g} (pseudo.view_std)",
    )
    return reasons


def agreement(pool: pd.DataFrame, stays: np.ndarray) -> np.ndarray:
    """Leaves out patches that head and kNN call differently, and those without a kNN prob.

    Raises UserError where no patch of a pool has a kNN prob.
    """
    reasons = nothing_said(len(pool))
    unknown = pool.knn_prob.isna().to_numpy()
    if len(pool) and unknown.all():
        raise UserError(
            "pseudo.agreement=true needs kNN probs and the round before has none; "
            "begin with neighbours.use=true or with a metric-train run, or set pseudo.agreement=false"
        )
    reasons[stays & unknown] = "kNN gives no prob (pseudo.agreement)"
    differ = (pool.knn_prob >= 0.5).to_numpy() != (pool.called == 1).to_numpy()
    say(reasons, stays & ~unknown & differ, pool.knn_prob, "kNN prob {:.4g} calls the other class (pseudo.agreement)")
    return reasons


def nothing_said(n: int) -> np.ndarray:
    """Empty reasons, object [n]."""
    return np.full(n, "", dtype=object)


def say(reasons: np.ndarray, out: np.ndarray, values: pd.Series, words: str) -> None:
    """Write `words`, with the row's own value in the braces, as the reason of the rows `out` bool [N]."""
    reasons[out] = np.array([words.format(value) for value in values.to_numpy()[out].tolist()], dtype=object)


def _best(threshold: Threshold) -> str:
    return "" if threshold.bound is None else f" (best bound {rounded_down(threshold.bound):g})"
