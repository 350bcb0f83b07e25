"""How alike predictions are: Pearson and Spearman correlation of their logits. No torch."""

import numpy as np
from scipy.special import logit as inverse_sigmoid
from scipy.stats import rankdata

SURE = 1e-15


def calibrated_logits(probs) -> np.ndarray:
    """Logits of calibrated probs of class 1, finite, any shape; the same scale in every fold and every run, unlike raw logits."""
    return inverse_sigmoid(np.clip(np.asarray(probs, dtype=np.float64), SURE, 1 - SURE))


def pearson(logits) -> np.ndarray:
    """Correlation [M, M] of the columns of logits [N, M]; NaN beside a column that is constant."""
    logits = np.asarray(logits, dtype=np.float64)
    constant = np.ptp(logits, axis=0) == 0
    deviations = [column - column.mean() for column in logits.T]
    # Pair by pair: in a matrix product what two columns share would hang on the columns beside them, and on the CPU.
    products = np.array([[(one * other).sum() for other in deviations] for one in deviations])
    squares = np.diagonal(products)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.clip(products / np.sqrt(np.outer(squares, squares)), -1, 1)
    np.fill_diagonal(found, 1.0)
    found[constant] = found[:, constant] = np.nan
    return found


def spearman(logits) -> np.ndarray:
    """`pearson` of the ranks of each column of logits [N, M]; ties share their mean rank."""
    return pearson(rankdata(logits, axis=0))
