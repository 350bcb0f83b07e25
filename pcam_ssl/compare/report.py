"""A comparison of runs as one page that needs nothing else. No torch."""

import shlex
from pathlib import Path
from typing import Any

from pcam_ssl import __version__
from pcam_ssl.compare.charts import correlation_card, difference_card, leak_card, learning_cards, score_rows
from pcam_ssl.compare.compare_seeds_card import seeds_card
from pcam_ssl.compare.verdict import (
    compared,
    epochs_text,
    marked_note,
    name_of,
    rate_text,
    remarks,
    seeds_counted,
    short_count,
    title,
    verdict,
)
from pcam_ssl.pseudo_labels.verdict import gain_word
from pcam_ssl.render.format import NAMES
from pcam_ssl.render.markup import Markup, card, fold_out, table, tag, with_interval
from pcam_ssl.report.page import document

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
