"""A comparison of runs as a document: a page, and the text of a terminal."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pcam_ssl import __version__
from pcam_ssl.compare.charts import correlations, differences, held_out, learning, score_rows, seed_rows
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
from pcam_ssl.render import html, text
from pcam_ssl.render.document import (
    Block,
    Cell,
    Details,
    Document,
    Facts,
    Group,
    Items,
    Paragraph,
    Preformatted,
    Section,
    Table,
    Verdict,
)
from pcam_ssl.render.format import NAMES, gain_numbers, gain_word, interval, passes, three, with_interval

SHOWN = ("auroc", "average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "brier", "ece")
SHOWN_AS_TEXT = ("average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "ece")
WIDTH = 110


def page(comparison: dict[str, Any]) -> str:
    """The whole page; the same comparison gives the same text."""
    return html.page(comparison_document(comparison))


def compare_text(comparison: dict[str, Any]) -> str:
    """Scores, differences, costs, correlation and held-out scores, then the verdict, since a terminal shows the end."""
    return text.terminal(_summary(comparison), WIDTH)


def comparison_document(comparison: dict[str, Any]) -> Document:
    """The whole comparison, the verdict first."""
    columns = [Group((section,), "column") for section in (differences(comparison), *learning(comparison))]
    body = (
        _verdict(comparison),
        _seeds(comparison),
        Group(columns, "columns"),
        Group((correlations(comparison), held_out(comparison)), "pair"),
        _scores(comparison),
        _costs(comparison),
        _origin(comparison),
    )
    name = f"{Path(comparison['dataset']).name}: pcam-ssl compare"
    return Document(name, body, footer=f"Made by pcam-ssl {__version__} for research. Not for diagnosis.")


def _summary(comparison: dict[str, Any]) -> list[Block | None]:
    """The comparison for a terminal: no charts, fewer scores, and the content of each table named in its head."""
    notes = [
        f"Intervals: {comparison['interval']}. NLL and ECE: lower is better.",
        "Patch passes: views of training patches pushed forward, summed over folds; of a round, without the rounds before it.",
        "Patches per second: during training, median over epochs and folds, inner evaluation included.",
        "Correlation of calibrated logits: Pearson below the diagonal, Spearman above it.",
        marked_note(comparison),
    ]
    correlation = next(block for block in correlations(comparison).blocks if isinstance(block, Table))
    return [
        Paragraph(f"{title(comparison)}, of {comparison['dataset']}"),
        _auroc_table(comparison),
        _about("AUROC over seeds", _seeds_table(comparison)) if comparison["groups"] else None,
        _about(
            "other scores", _scores_table(comparison, SHOWN_AS_TEXT, [NAMES[name].partition(" (")[0] for name in SHOWN_AS_TEXT])
        ),
        _about("cost", _costs_table(comparison)),
        _about("correlation of logits", correlation),
        _held_out_table(comparison) if any(run["held_out"] for run in comparison["runs"]) else None,
        Items([note for note in notes if note], "note"),
        Items([verdict(comparison), *remarks(comparison)], "note"),
    ]


def _about(name: str, table: Table) -> Table:
    """The table as a terminal shows it: its name in place of the head of the first column, and all columns aligned left."""
    return replace(table, head=(name, *table.head[1:]), align="l" * len(table.head))


def _verdict(comparison: dict[str, Any]) -> Verdict:
    level, badge = _level(comparison)
    note = marked_note(comparison)
    known = comparison["runs"][0]["scores"]["auroc"]["value"] is not None
    shown = (
        score_rows(comparison) if known else None,
        Paragraph(f"{note}.", "note") if note else None,
        Paragraph(f"Intervals: {comparison['interval']}.", "note"),
    )
    return Verdict(
        level,
        badge,
        verdict(comparison, numbers=False),
        remarks=remarks(comparison),
        said=(Paragraph(f"{title(comparison)}."),),
        shown=shown,
        look="compared",
    )


def _level(comparison: dict[str, Any]) -> tuple[str, str]:
    if marked_note(comparison):
        return "bad", "Scores marked too good"
    if len(compared(comparison)) == 1:
        return "plain", "One recipe, several seeds"
    words = {gain_word(other["against_first"]["auroc"]) for other in compared(comparison)[1:]}
    if words & {"a gain", "a loss"}:
        return ("good", "Measurable difference") if seeds_counted(comparison) else ("plain", "Difference that the seed may explain")
    return "plain", "No measurable difference"


def _seeds(comparison: dict[str, Any]) -> Section | None:
    """Mean and spread over seeds of each recipe, and its difference to the first; None where no recipe was run with several seeds."""
    groups = comparison["groups"]
    if groups is None:
        return None
    known = groups[1:] and all(group["against_first"]["auroc"]["value"] is not None for group in groups[1:])
    note = (
        "Differences between means over seeds, paired by seed where both recipes have the same seeds. Their intervals combine the spread over resampled"
        " slides and the spread over seeds. A recipe with one seed has no known spread over seeds, so the seed may explain its difference."
    )
    blocks = (
        seed_rows(groups[1:]) if known else None,
        _seeds_table(comparison),
        Paragraph(note, "note"),
        Details("Mean over seeds, and difference to the first, all scores", (_all_means(groups),)),
    )
    return Section("Mean over seeds", blocks)


def _seeds_table(comparison: dict[str, Any]) -> Table:
    head = ("recipe", "seeds", "AUROC", f"against {comparison['groups'][0]['name']}", "result")
    return Table(head, over_seeds(comparison))


def _all_means(groups: list[dict[str, Any]]) -> Table:
    rows: list[list[str | Cell]] = []
    for group in groups:
        rows.append([group["name"], *(_mean(group["scores"][name]) for name in SHOWN)])
        if group["against_first"] is not None:
            gaps = (with_interval(group["against_first"][name], signed=True) for name in SHOWN)
            rows.append([f"{group['name']}, difference", *gaps])
    return Table(("recipe", *(NAMES[name] for name in SHOWN)), rows)


def _mean(score: dict[str, Any]) -> str:
    return three(score["value"]) + ("" if score["value"] is None or score["sd"] is None else f" (sd {score['sd']:.3f})")


def _scores(comparison: dict[str, Any]) -> Section:
    gaps = [
        [name_of(run, comparison), *(with_interval(run["against_first"][name], signed=True) for name in SHOWN)]
        for run in comparison["runs"][1:]
    ]
    scores = _scores_table(comparison, SHOWN, [NAMES[name] for name in SHOWN])
    folded = Details(f"Paired differences to {comparison['first']}, all scores", (Table(scores.head, gaps),))
    return Section("Scores out of fold", (scores, folded))


def _scores_table(comparison: dict[str, Any], scores: Sequence[str], head: Sequence[str]) -> Table:
    """A row a run, a column a score."""
    rows = [[name_of(run, comparison), *(with_interval(run["scores"][name]) for name in scores)] for run in comparison["runs"]]
    return Table(("run", *head), rows)


def _auroc_table(comparison: dict[str, Any]) -> Table:
    """AUROC of each run, its difference to the first, and whether that is a gain."""
    rows = []
    for run in comparison["runs"]:
        gap = run["against_first"] and gain_numbers(run["against_first"]["auroc"])
        rows.append([name_of(run, comparison), interval(run["scores"]["auroc"]), gap or "", run_word(run, comparison)])
    return Table(("AUROC out of fold", "score", f"against {comparison['first']}, paired", ""), rows, align="llll")


def _held_out_table(comparison: dict[str, Any]) -> Table:
    """AUROC of each run out of fold and on its held-out splits."""
    rows = []
    for run in comparison["runs"]:
        held = [f"{interval(score)} {split_note(run, split)}" for split, score in (run["held_out"] or {}).items()]
        rows.append([name_of(run, comparison), interval(run["scores"]["auroc"]), ", ".join(held) or "-"])
    return Table(("AUROC", "out of fold", "held-out slides"), rows, align="lll")


def _costs(comparison: dict[str, Any]) -> Section:
    note = "Parameters of one fold's network; for a blend, of all members. Patch passes: views of training patches pushed forward, summed over folds; of a round, without the rounds before it; cached: heads on features computed once. Patches per second during training: median over epochs and folds, inner evaluation included."
    return Section("Cost", (_costs_table(comparison), Paragraph(note, "note")))


def _costs_table(comparison: dict[str, Any]) -> Table:
    rows = [
        [
            name_of(run, comparison),
            run["network"],
            short_count(run["parameters"]),
            epochs_text(run),
            passes(run["cost"]),
            rate_text(run),
            run["device"] or "-",
        ]
        for run in comparison["runs"]
    ]
    return Table(("run", "network", "parameters", "epochs", "patch passes", "patches/s", "on"), rows)


def _origin(comparison: dict[str, Any]) -> Section:
    specs = [f"{run['run']}:{run['table']}" if run["table"] else run["run"] for run in comparison["runs"]]
    named = [(run["name"], f"{spec}, by pcam-ssl {run['command']}") for run, spec in zip(comparison["runs"], specs, strict=True)]
    named.append(("Dataset", f"{comparison['dataset']}, digest {comparison['dataset_digest']}"))
    command = Preformatted(shlex.join(["pcam-ssl", "compare", *specs]))
    return Section("Provenance", (command, Facts(named, "names")))
