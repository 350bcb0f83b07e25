"""Numbers as text: scores, intervals, gains, and the names of scores. One place, so that a number reads the same everywhere.

A score is a dict with `value`, `low` and `high`, each of which may be None, and `reason` where one is.
"""

from typing import Any

from pcam_ssl.render.document import Cell

NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "nll": "NLL (less is better)",
    "brier": "Brier (less is better)",
    "ece": "ECE (less is better)",
    "sensitivity_at_specificity_90": "sensitivity at 90 % specificity",
    "sensitivity_at_specificity_95": "sensitivity at 95 % specificity",
    "sensitivity_at_specificity_98": "sensitivity at 98 % specificity",
    "specificity_at_sensitivity_95": "specificity at 95 % sensitivity",
}

WITHIN_FOLDS = "AUROC, mean within folds"
"""What each fold's network ranks among its own patches: no scale is shared between folds."""

LABELS = {1: "tumor", 0: "normal", None: "unlabelled"}
COLOURS = {1: "c2", 0: "c1", None: "c0"}
"""Colours of tumor, normal and unlabelled patches."""


def decimals(value: float | None, n: int = 3) -> str:
    """A number with `n` decimals, or '-' where it is not defined."""
    return "-" if value is None else f"{value:.{n}f}"


def three(value: float | None) -> str:
    """A score with three decimals, or '-' where it is not defined."""
    return decimals(value, 3)


def count(value: int | None) -> str:
    """'1,243', or '-' where it is not known."""
    return "-" if value is None else f"{value:,}"


def percent(share: float) -> str:
    """'34 %'."""
    return f"{100 * share:.0f} %"


def ends(score: dict[str, Any], form: str = ".3f") -> str:
    """'0.931 to 0.957', or '' where there is no interval."""
    return "" if score["low"] is None else f"{score['low']:{form}} to {score['high']:{form}}"


def with_interval(score: dict[str, Any], signed: bool = False) -> Cell | str:
    """A value and, beneath it, its interval where there is one."""
    if score["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    return Cell(f"{score['value']:{form}}", below=ends(score, form))


def interval(score: dict[str, Any], form: str = ".3f") -> str:
    """'0.945 (0.931 to 0.957)'; without an interval the value alone, or a dash."""
    if score["value"] is None:
        return "-"
    return f"{score['value']:{form}}" + (f" ({ends(score, form)})" if score["low"] is not None else "")


def gain_numbers(difference: dict[str, Any]) -> str:
    """'+0.004 (-0.001 to +0.009)'; without an interval the value alone, or a dash."""
    return interval(difference, "+.3f")


def gain_word(difference: dict[str, Any], less_is_better: bool = False) -> str:
    """What a paired difference shows: a gain or a loss only where its interval leaves out zero."""
    low, high = difference["low"], difference["high"]
    if low is None:
        return "gain not known"
    better, worse = (high < 0, low > 0) if less_is_better else (low > 0, high < 0)
    return "a gain" if better else "a loss" if worse else "no measurable gain"


def gain_words(difference: dict[str, Any], less_is_better: bool = False) -> str:
    """`gain_word` with the numbers, or with the reason where there are none."""
    word = gain_word(difference, less_is_better)
    return f"{word} ({difference['reason']})" if difference["low"] is None else f"{word}: {gain_numbers(difference)}"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
