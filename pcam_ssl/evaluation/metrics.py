"""Scores as functions of labels [N] (0 or 1) and probs [N] (of class 1, tumor), and the correlation of predictions.

A score is None, never 0 or NaN, where the rows do not define it: `accuracy`, `nll`, `brier`, `ece` need one row, `f1` one
tumor row, all others a row of each class. A patch is called tumor where its prob is 0.5 or more.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

ECE_BINS = 15
SPECIFICITIES = (0.90, 0.95, 0.98)
SENSITIVITY = 0.95
# A ratio such as 19/20 must reach 0.95 in spite of rounding. Ratios of counts lie much further apart than this.
ROUNDING = 1e-9
NLL_ROUNDING = 1e-12
"""Equal mean NLLs can differ by this much when summed in another order or on another CPU. Smaller differences decide nothing."""


def _two_classes(labels) -> bool:
    return 0 < np.sum(labels) < len(labels)


def auroc(labels, probs) -> float | None:
    """Area under the ROC curve; a tied pair counts half."""
    return float(roc_auc_score(labels, probs)) if _two_classes(labels) else None


def average_precision(labels, probs) -> float | None:
    """Average precision: the sum over thresholds of precision times the step in recall (no interpolation)."""
    return float(average_precision_score(labels, probs)) if _two_classes(labels) else None


def accuracy(labels, probs) -> float | None:
    """Share of correctly called patches at prob 0.5."""
    return float(np.mean(_called(probs) == (np.asarray(labels) == 1))) if len(labels) else None


def balanced_accuracy(labels, probs) -> float | None:
    """Mean of sensitivity and specificity at prob 0.5."""
    if not _two_classes(labels):
        return None
    labels, called = np.asarray(labels), _called(probs)
    return float((called[labels == 1].mean() + (~called[labels == 0]).mean()) / 2)


def f1(labels, probs) -> float | None:
    """F1 of class 1 at prob 0.5; None where no patch is tumor."""
    if not np.sum(labels):
        return None
    tumor, called = np.asarray(labels) == 1, _called(probs)
    return float(2 * np.sum(tumor & called) / (tumor.sum() + called.sum()))


def nll(labels, probs) -> float | None:
    """Mean negative log-likelihood in nats; the prob of the true class is taken as at least float64's epsilon."""
    return float(row_nll(labels, probs).mean()) if len(labels) else None


def brier(labels, probs) -> float | None:
    """Mean squared difference between prob and label."""
    return float(row_brier(labels, probs).mean()) if len(labels) else None


def ece(labels, probs) -> float | None:
    """Expected calibration error of the prob of class 1 (Naeini et al. 2015), over 15 bins of equal width on [0, 1].

    Guo et al. 2017 (arXiv:1706.04599) bin the confidence in the called class. Here the prob of class 1 is binned, because
    that is the number users read.
    """
    if not len(labels):
        return None
    gaps = np.bincount(ece_bin(probs), weights=np.asarray(probs, dtype=np.float64) - np.asarray(labels))
    return float(np.abs(gaps).sum() / len(labels))


def sensitivity_at_specificity(labels, probs, specificity: float) -> float | None:
    """Highest sensitivity over the thresholds whose specificity is at least `specificity`; no interpolation."""
    if not _two_classes(labels):
        return None
    false_rate, true_rate, _ = roc_curve(labels, probs, drop_intermediate=False)
    return float(true_rate[false_rate <= 1 - specificity + ROUNDING].max())


def specificity_at_sensitivity(labels, probs, sensitivity: float) -> float | None:
    """Highest specificity over the thresholds whose sensitivity is at least `sensitivity`; no interpolation."""
    if not _two_classes(labels):
        return None
    false_rate, true_rate, _ = roc_curve(labels, probs, drop_intermediate=False)
    return float(1 - false_rate[true_rate >= sensitivity - ROUNDING].min())


def point_scores(labels, probs) -> dict[str, float | None]:
    """Every score of the package by name, from labels [N] and probs [N]."""
    scores = {score.__name__: score(labels, probs) for score in PLAIN_SCORES}
    for bar in SPECIFICITIES:
        scores[sensitivity_name(bar)] = sensitivity_at_specificity(labels, probs, bar)
    scores[specificity_name(SENSITIVITY)] = specificity_at_sensitivity(labels, probs, SENSITIVITY)
    return scores


def sensitivity_name(specificity: float) -> str:
    """The key of the sensitivity at a specificity of 0..1."""
    return f"sensitivity_at_specificity_{100 * specificity:.0f}"


def specificity_name(sensitivity: float) -> str:
    """The key of the specificity at a sensitivity of 0..1."""
    return f"specificity_at_sensitivity_{100 * sensitivity:.0f}"


def row_nll(labels, probs) -> np.ndarray:
    """Negative log-likelihood of each row in nats, [N]."""
    probs = np.asarray(probs, dtype=np.float64)
    return -np.log(np.maximum(np.where(np.asarray(labels) == 1, probs, 1 - probs), np.finfo(np.float64).eps))


def row_brier(labels, probs) -> np.ndarray:
    """Squared difference between prob and label of each row, [N]."""
    return (np.asarray(probs, dtype=np.float64) - np.asarray(labels)) ** 2


def ece_bin(probs) -> np.ndarray:
    """The calibration bin of each prob, int [N] in 0..14; prob 1 is in the last bin."""
    return np.minimum((np.asarray(probs) * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def _called(probs) -> np.ndarray:
    return np.asarray(probs) >= 0.5


PLAIN_SCORES = (auroc, average_precision, accuracy, balanced_accuracy, f1, nll, brier, ece)


def pearson(logits) -> np.ndarray:
    """Pearson correlation [M, M] of the columns of logits [N, M]; NaN for a constant column."""
    logits = np.asarray(logits, dtype=np.float64)
    constant = np.ptp(logits, axis=0) == 0
    deviations = [column - column.mean() for column in logits.T]
    # Pair by pair: in a matrix product the last digits of a pair depend on the other columns and on the CPU.
    products = np.array([[(one * other).sum() for other in deviations] for one in deviations])
    squares = np.diagonal(products)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.clip(products / np.sqrt(np.outer(squares, squares)), -1, 1)
    np.fill_diagonal(correlation, 1.0)
    correlation[constant] = correlation[:, constant] = np.nan
    return correlation


def spearman(logits) -> np.ndarray:
    """Spearman correlation [M, M] of the columns of logits [N, M]; ties share their mean rank."""
    return pearson(rankdata(logits, axis=0))


def predicted_class(probs) -> np.ndarray:
    """The predicted class of each prob, int8 [N]: 1 (tumor) at 0.5 or more."""
    return (np.asarray(probs, dtype=np.float64) >= 0.5).astype(np.int8)
