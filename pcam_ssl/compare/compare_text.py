"""A comparison as aligned plain text, the same in a pipe. No torch."""

from textwrap import wrap
from typing import Any

from pcam_ssl.compare.verdict import (
    epochs_text,
    marked_note,
    name_of,
    over_seeds,
    rate_text,
    remarks,
    run_word,
    short_count,
    split_note,
    title,
    verdict,
)
from pcam_ssl.pseudo_labels.verdict import gain_numbers
from pcam_ssl.render.format import NAMES

WIDTH = 110
SHOWN = ("average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "ece")


def compare_text(comparison: dict[str, Any]) -> str:
    """Scores, differences, costs, correlation and the leak table, then the verdict: a terminal shows the end."""
    names = [name_of(run, comparison) for run in comparison["runs"]]
    blocks = [
        _wrapped(f"{title(comparison)}, of {comparison['dataset']}"),
        _aligned(("AUROC out of fold", "score", f"against {comparison['first']}, paired", ""), _scores(comparison, names)),
        _aligned(("other scores", *(NAMES[name].partition(" (")[0] for name in SHOWN)), _others(comparison, names)),
        _aligned(("cost", "network", "parameters", "epochs", "patches/s", "on"), _costs(comparison, names)),
        _aligned(("correlation of logits", *numbers(len(names))), correlations(comparison, names)),
    ]
    if comparison["groups"] is not None:
        first = comparison["groups"][0]["name"]
        blocks.insert(2, _aligned(("AUROC over seeds", "seeds", "score", f"against {first}", ""), over_seeds(comparison)))
    if any(run["held_out"] for run in comparison["runs"]):
        blocks.append(_aligned(("AUROC", "out of fold", "held-out slides"), _leaks(comparison, names)))
    notes = [
        f"Intervals: {comparison['interval']}. NLL and ECE: less is better.",
        "Patches a second: in training, median over epochs and folds, inner evaluation included.",
        "Correlation of calibrated logits: Pearson below the diagonal, Spearman above it.",
    ]
    notes += [note for note in [marked_note(comparison)] if note]
    blocks.append("\n".join(_wrapped(note) for note in notes))
    blocks.append("\n".join(_wrapped(line) for line in [verdict(comparison), *remarks(comparison)]))
    return "\n\n".join(blocks)


def numbers(n: int) -> list[str]:
    """'1', '2', ...: columns of a square table, whose rows are numbered too."""
    return [str(number) for number in range(1, n + 1)]


def correlations(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    """Rows of the square table: Pearson below the diagonal, Spearman above."""
    below, above = comparison["correlation"]["pearson"], comparison["correlation"]["spearman"]
    rows = []
    for i, name in enumerate(names):
        values = [None if i == j else (below if j < i else above)[i][j] for j in range(len(names))]
        cells = ["" if i == j else "-" if value is None else f"{value:.2f}" for j, value in enumerate(values)]
        rows.append([f"{i + 1} {name}", *cells])
    return rows


def _scores(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    rows = []
    for run, name in zip(comparison["runs"], names, strict=True):
        gap = run["against_first"] and run["against_first"]["auroc"]
        rows.append([name, _interval(run["scores"]["auroc"]), gain_numbers(gap) if gap else "", run_word(run, comparison)])
    return rows


def _others(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    runs = zip(comparison["runs"], names, strict=True)
    return [[name, *(_interval(run["scores"][score]) for score in SHOWN)] for run, name in runs]


def _costs(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    return [
        [name, run["network"], short_count(run["parameters"]), epochs_text(run), rate_text(run), run["device"] or "-"]
        for run, name in zip(comparison["runs"], names, strict=True)
    ]


def _leaks(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    rows = []
    for run, name in zip(comparison["runs"], names, strict=True):
        held = [f"{_interval(score)}  {split_note(run, split)}" for split, score in (run["held_out"] or {}).items()]
        rows.append([name, _interval(run["scores"]["auroc"]), ", ".join(held) or "-"])
    return rows


def _interval(score: dict[str, Any]) -> str:
    if score["value"] is None:
        return "-"
    return f"{score['value']:.3f}" + ("" if score["low"] is None else f" ({score['low']:.3f} to {score['high']:.3f})")


def _aligned(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))
