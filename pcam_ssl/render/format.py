"""Numbers as text: scores, intervals, gains, and the names of scores. One place, so that a number reads the same everywhere.

A score is a dict with `value`, `low` and `high`, each of which may be None, and `reason` where one is.
"""

from collections.abc import Iterable
from textwrap import wrap
from typing import Any

from pcam_ssl.render.document import Block, Cell, Paragraph, Table
from pcam_ssl.render.text import aligned

WIDTH = 80
NAMES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "nll": "NLL (lower is better)",
    "brier": "Brier (lower is better)",
    "ece": "ECE (lower is better)",
    "sensitivity_at_specificity_90": "sensitivity at 90 % specificity",
    "sensitivity_at_specificity_95": "sensitivity at 95 % specificity",
    "sensitivity_at_specificity_98": "sensitivity at 98 % specificity",
    "specificity_at_sensitivity_95": "specificity at 95 % sensitivity",
}

WITHIN_FOLDS = "AUROC, mean within folds"
"""The mean of the folds' own AUROCs: probs of different folds are not compared."""

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


def passes(cost: dict[str, Any] | None) -> str:
    """The patch passes of a training, 'cached' where it reads cached features, or '-' where a run of an earlier version does not tell."""
    return "cached" if cost and cost["cached"] else count(cost and cost["patch_passes"])


def size(n_bytes: int) -> str:
    """A number of bytes as GB, MB or kB."""
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


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
    """What a paired difference shows: a gain or a loss only where its interval excludes zero."""
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


def score_table(scores: dict, title: str, floor: dict | None = None) -> str:
    """The table of a `score_report`, beside that of the colour baseline (`floor`) where given, ending without a newline."""
    reports = [scores] if floor is None else [scores, floor]
    head = ["", "score", "95 % interval", *(["colour", "95 % interval"] if floor else [])]
    rows = []
    for name, label in NAMES.items():
        rows.append([label, *_cells(report["scores"][name] for report in reports)])
        if name == "auroc" and scores["within_folds"]["auroc"]["folds"] > 1:
            rows.append([WITHIN_FOLDS, *_cells(report["within_folds"]["auroc"] for report in reports)])
    lines = [*wrap(f"{title}: {counts_text(scores)}", WIDTH), aligned(Table(head, rows, align="l" * len(head)))]
    lines += wrap(f"interval: {scores['interval']}", WIDTH)
    if any(report["scores"][name]["value"] is None for report in reports for name in NAMES):
        lines.append("- : not defined, because a class is absent")
    return "\n".join(lines)


def score_document(scores: dict, title: str) -> list[Block]:
    """The same table as `score_table`, as blocks of a document."""
    rows = [(label, interval(scores["scores"][name])) for name, label in NAMES.items()]
    head = Paragraph(f"{title}: {counts_text(scores)}", "headline")
    return [head, Table(("score", "value, 95 % interval"), rows), Paragraph(f"Interval: {scores['interval']}.", "note")]


def counts_text(scores: dict) -> str:
    """'1,243 patches (447 tumor) of 34 slides' for a `score_report`."""
    text = f"{scores['n']:,} patches ({scores['n_positive']:,} tumor)"
    if scores["n_slides"]:
        text += f" of {scores['n_slides']:,} slides, {scores['n_slides_tumor']:,} with tumor"
    else:
        text += ", slides unknown"
    return text + (f"; {scores['n_unlabelled']:,} without label left out" if scores["n_unlabelled"] else "")


def scored_words(facts: dict[str, Any]) -> str:
    """'1,243 patches (446 tumor) of 34 slides, 5 folds grouped by slides', of what a comparison or a label curve was scored on.

    `facts`: n, n_positive, n_slides (None where unknown), n_folds, scheme, grouping.
    """
    slides = f"of {facts['n_slides']:,} slides" if facts["n_slides"] else "of unknown slides"
    folds = {
        "grouped": f"{facts['n_folds']} folds grouped by {facts['grouping']}",
        "official": "the published split",
        "random": f"{facts['n_folds']} folds of random patches",
    }
    return f"{facts['n']:,} patches ({facts['n_positive']:,} tumor) {slides}, {folds[facts['scheme']]}"


def by_knn(scores: dict) -> bool:
    """Whether kNN made the run's predictions, since no classifier was trained (`method.classify: false`)."""
    return scores.get("scored_by") == "knn"


def split_words(split: str, report: dict) -> str:
    """'held out: test', or 'transductive: test' where its scored patches were in the pool that networks learned from."""
    return f"{'transductive' if report.get('transductive') else 'held out'}: {split}"


def out_of_fold_words(scores: dict) -> str:
    """'out of fold', marked where the scored patches were in the graph that scored them."""
    return "out of fold, transductive" if scores.get("transductive") else "out of fold"


def transductive_sentence(scores: dict) -> str | None:
    """What scores of patches mean that were in the pool, or in the graph of label propagation; None for a scores.json without any."""
    if scores.get("transductive"):
        return (
            "transductive: the scored patches were in the graph of label propagation, without their labels, so all scores say how well this"
            " very set is labelled, not what to expect of new slides"
        )
    shares = [
        f"{report['in_pool']:.0%} of the scored patches of {split}"
        for split, report in (scores["held_out"] or {}).items()
        if report.get("transductive")
    ]
    if not shares:
        return None
    return (
        f"transductive: {', '.join(shares)} were in the pool that the networks learned from, so the scores there say how well"
        " this very set is labelled, not what to expect of new slides"
    )


def _cells(scores: Iterable[dict[str, Any]]) -> list[str]:
    return [cell for score in scores for cell in (three(score["value"]), ends(score))]
