"""The selector that holds the classes in the ratio of the prior. No torch."""

from math import fsum

import numpy as np
import pandas as pd

from pcam_ssl.pseudo_labels.caps import keep_surest
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.pseudo_labels.selectors import nothing_said


def pool_prior(pool: pd.DataFrame) -> float | None:
    """Share of tumor in the pool as the calibrated probs have it, their mean; None for an empty pool."""
    # An exact sum, for the mean of a shuffled pool must not differ in its last bit.
    return fsum(pool.prob) / len(pool) if len(pool) else None


def balance(pool: pd.DataFrame, stays: np.ndarray, prior: float) -> np.ndarray:
    """Keeps of the class there is too much of the surest, so that the tumor share comes nearest `prior`.

    Where no candidate is of one class, no ratio can be kept and nothing stays. Takes and returns what `patchwise` does.
    """
    reasons = nothing_said(len(pool))
    tumor = int((stays & (pool.called == 1).to_numpy()).sum())
    normal = int(stays.sum()) - tumor
    if not tumor or not normal:
        absent = CLASSES[0 if tumor else 1]
        reasons[stays] = f"no {absent} patch is left to keep a tumor share of {prior:.4g} (pseudo.balance)"
        return reasons
    words = f"{{}} surer {{}} patches fill the tumor share of {prior:.4g} (pseudo.balance)"
    if tumor > prior * (tumor + normal):
        kept = min(tumor, _filling(normal, prior))
        return keep_surest(pool, stays, 1, kept, words.format(kept, "tumor"))
    kept = min(normal, _filling(tumor, 1 - prior))
    return keep_surest(pool, stays, 0, kept, words.format(kept, "normal"))


def _filling(others: int, share: float) -> int:
    """How many patches beside `others` make up nearest to `share` of all; `share` below 1."""
    least = int(others * share / (1 - share))
    return min((least + 1, least), key=lambda n: abs(n / (n + others) - share))
