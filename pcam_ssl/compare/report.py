"""A comparison of runs as a page and as text."""

import shlex
from pathlib import Path
from textwrap import wrap
from typing import Any

from pcam_ssl import __version__
from pcam_ssl.compare.charts import correlation_card, difference_card, leak_card, learning_cards, score_rows
from pcam_ssl.compare.verdict import (
    compared,
    epochs_text,
    marked_note,
    name_of,
    over_seeds,
    rate_text,
    remarks,
    run_word,
    seeds_counted,
    short_count,
    split_note,
    title,
    verdict,
)
from pcam_ssl.render.charts import Mark, dot_rows, spanning
from pcam_ssl.render.format import NAMES, gain_numbers, gain_word
from pcam_ssl.render.markup import Markup, card, fold_out, table, tag, with_interval
from pcam_ssl.render.page import document

STYLE = Path(__file__).with_name("compare.css")
SHOWN = ("auroc", "average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "brier", "ece")


def page(comparison: dict[str, Any]) -> str:
    """The whole page; the same comparison gives the same text."""
    name = f"{Path(comparison['dataset']).name}: pcam-ssl compare"
    auroc, loss = learning_cards(comparison)
    cards = [difference_card(comparison), auroc, loss]
    body = [
        tag("header", tag("h1", name)),
        _verdict(comparison),
        seeds_card(comparison, SHOWN),
        tag("div", [tag("div", each, class_="column") for each in cards], class_="columns"),
        tag("div", correlation_card(comparison), leak_card(comparison), class_="pair"),
        _scores(comparison),
        _costs(comparison),
        _origin(comparison),
        tag("footer", f"Made by pcam-ssl {__version__} for research. Not for diagnosis."),
    ]
    return document(name, body, STYLE.read_text(encoding="utf-8"))


def _verdict(comparison: dict[str, Any]) -> Markup:
    level, badge = _level(comparison)
    note = marked_note(comparison)
    words = [
        tag("p", tag("span", badge, class_="badge"), class_="lead"),
        tag("p", verdict(comparison, numbers=False), class_="headline"),
        tag("p", f"{title(comparison)}."),
        tag("ul", [tag("li", line) for line in remarks(comparison)], class_="remarks") if remarks(comparison) else None,
    ]
    known = comparison["runs"][0]["scores"]["auroc"]["value"] is not None
    shown = [
        score_rows(comparison) if known else None,
        tag("p", f"{note}.", class_="note") if note else None,
        tag("p", f"Intervals: {comparison['interval']}.", class_="note"),
    ]
    return tag("section", tag("div", words), tag("div", shown, class_="shown"), class_=f"verdict {level}", aria_label="Verdict")


def _level(comparison: dict[str, Any]) -> tuple[str, str]:
    if marked_note(comparison):
        return "bad", "Scores marked too good"
    if len(compared(comparison)) == 1:
        return "plain", "One recipe, several seeds"
    words = {gain_word(other["against_first"]["auroc"]) for other in compared(comparison)[1:]}
    if words & {"a gain", "a loss"}:
        return ("good", "There is a difference") if seeds_counted(comparison) else ("plain", "A difference, perhaps the seed's")
    return "plain", "No measurable difference"


def _scores(comparison: dict[str, Any]) -> Markup:
    rows = [[name_of(run, comparison), *(with_interval(run["scores"][name]) for name in SHOWN)] for run in comparison["runs"]]
    gaps = [
        [name_of(run, comparison), *(with_interval(run["against_first"][name], signed=True) for name in SHOWN)]
        for run in comparison["runs"][1:]
    ]
    head = ["run", *(NAMES[name] for name in SHOWN)]
    return card(
        "Scores out of fold",
        table(head, rows),
        fold_out(f"Paired differences to {comparison['first']}, all scores", table(head, gaps)),
    )


def _costs(comparison: dict[str, Any]) -> Markup:
    rows = [
        [
            name_of(run, comparison),
            run["network"],
            short_count(run["parameters"]),
            epochs_text(run),
            rate_text(run),
            run["device"] or "-",
        ]
        for run in comparison["runs"]
    ]
    note = "Parameters of one fold's network, of all members for a blend. Patches a second while training: median over epochs and folds, inner evaluation included."
    return card(
        "What each costs", table(["run", "network", "parameters", "epochs", "patches/s", "on"], rows), tag("p", note, class_="note")
    )


def _origin(comparison: dict[str, Any]) -> Markup:
    specs = [f"{run['run']}:{run['table']}" if run["table"] else run["run"] for run in comparison["runs"]]
    named = [(run["name"], f"{spec}, by pcam-ssl {run['command']}") for run, spec in zip(comparison["runs"], specs, strict=True)]
    named.append(("Dataset", f"{comparison['dataset']}, digest {comparison['dataset_digest']}"))
    return card(
        "Where it comes from, and how to repeat it",
        tag("pre", shlex.join(["pcam-ssl", "compare", *specs])),
        tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in named]),
    )


WIDTH = 110
SHOWN_AS_TEXT = ("average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "ece")


def compare_text(comparison: dict[str, Any]) -> str:
    """Scores, differences, costs, correlation and the leak table, then the verdict: a terminal shows the end."""
    names = [name_of(run, comparison) for run in comparison["runs"]]
    blocks = [
        _wrapped(f"{title(comparison)}, of {comparison['dataset']}"),
        _aligned(("AUROC out of fold", "score", f"against {comparison['first']}, paired", ""), _scores_text(comparison, names)),
        _aligned(("other scores", *(NAMES[name].partition(" (")[0] for name in SHOWN_AS_TEXT)), _others(comparison, names)),
        _aligned(("cost", "network", "parameters", "epochs", "patches/s", "on"), _costs_text(comparison, names)),
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


def _scores_text(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    rows = []
    for run, name in zip(comparison["runs"], names, strict=True):
        gap = run["against_first"] and run["against_first"]["auroc"]
        rows.append([name, _interval(run["scores"]["auroc"]), gain_numbers(gap) if gap else "", run_word(run, comparison)])
    return rows


def _others(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
    runs = zip(comparison["runs"], names, strict=True)
    return [[name, *(_interval(run["scores"][score]) for score in SHOWN_AS_TEXT)] for run, name in runs]


def _costs_text(comparison: dict[str, Any], names: list[str]) -> list[list[str]]:
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


def seeds_card(comparison: dict[str, Any], scores: tuple[str, ...]) -> Markup | None:
    """Mean and spread over seeds of each recipe, and its difference to the first; None where no recipe was run with several seeds."""
    groups = comparison["groups"]
    if groups is None:
        return None
    first, others = groups[0], groups[1:]
    known = others and all(group["against_first"]["auroc"]["value"] is not None for group in others)
    head = ["recipe", "seeds", "AUROC", f"against {first['name']}", "shows"]
    note = (
        "Differences of means over seeds, paired by seed where both have the same. Their intervals add the spread over resampled slides and the"
        " spread over seeds; of one seed the spread over seeds is not known, and its difference may be the seed's."
    )
    return card(
        "Over seeds",
        _chart(others) if known else None,
        table(head, over_seeds(comparison)),
        tag("p", note, class_="note"),
        fold_out("Mean over seeds, and difference to the first, all scores", _all(groups, scores)),
    )


def _chart(others: list[dict[str, Any]]) -> Markup:
    rows, ends = [], [0.0]
    for group in others:
        gap = group["against_first"]["auroc"]
        said = f"{group['name']}: {gain_numbers(gap)}"
        rows.append((group["name"], [Mark(gap["value"], "c2", said, gap["low"], gap["high"])]))
        ends += [end for end in (gap["value"], gap["low"], gap["high"]) if end is not None]
    alt = "Differences in mean AUROC over seeds; numbers below"
    return dot_rows(rows, spanning("difference in AUROC, mean over seeds", ends), alt, reference=0.0)


def _all(groups: list[dict[str, Any]], scores: tuple[str, ...]) -> Markup:
    rows = []
    for group in groups:
        rows.append([group["name"], *(_mean(group["scores"][name]) for name in scores)])
        if group["against_first"] is not None:
            gaps = (with_interval(group["against_first"][name], signed=True) for name in scores)
            rows.append([f"{group['name']}, difference", *gaps])
    return table(["recipe", *(NAMES[name] for name in scores)], rows)


def _mean(score: dict[str, Any]) -> str:
    if score["value"] is None or score["sd"] is None:
        return "-" if score["value"] is None else f"{score['value']:.3f}"
    return f"{score['value']:.3f} (sd {score['sd']:.3f})"
