"""Pseudo-label rounds on a page: whether they helped, what each learned from, and how right its pseudo-labels were. No torch."""

from pathlib import Path
from typing import Any

from pcam_ssl.pseudo_labels.report import Section, sections
from pcam_ssl.render.charts import Mark, dot_rows, spanning
from pcam_ssl.render.markup import Markup, absent, card, fold_out, table, tag
from pcam_ssl.runs.run import ROUNDS_FILE

TITLE = "Pseudo-label rounds"


def rounds_cards(rounds: dict[Path, dict[str, Any]]) -> list[Markup]:
    """A card for each verdict: its sentence and the gains as a chart; what they rest on opens on request."""
    if not rounds:
        return [absent(TITLE, "none were made; `pcam-ssl pseudo-label RUN` makes them, and this page again")]
    return [_card(folder, verdict) for folder, verdict in rounds.items()]


def _card(folder: Path, verdict: dict[str, Any]) -> Markup:
    first, *others = sections(verdict)
    opened = [
        *[tag("p", sentence) for sentence in first.sentences],
        tag("pre", first.command),
        _gains(verdict),
        [fold_out(section.title, *_parts(section)) for section in others],
        tag("p", f"From {folder / ROUNDS_FILE}.", class_="note"),
    ]
    return card(f"{TITLE}, pooled" if verdict["pooled"] else TITLE, *opened)


def _parts(section: Section) -> list[Markup | None]:
    return [
        *[tag("p", sentence) for sentence in section.sentences],
        table(list(section.head), [list(row) for row in section.rows]) if section.head else None,
        tag("ul", [tag("li", note) for note in section.notes], class_="note") if section.notes else None,
    ]


def _gains(verdict: dict[str, Any]) -> Markup | None:
    """AUROC of each round less that of round 0, paired; nothing where no round was made or has one."""
    if len(verdict["rounds"]) < 2:
        return None
    entries = [(f"round {row['number']}", row["against_round_0"]) for row in verdict["rounds"]]
    if verdict["chosen_by_fold"]:
        entries.append(("each fold's own choice", verdict["chosen_by_fold"]["against_round_0"]))
    known = [(name, gains["auroc"]) for name, gains in entries if gains and gains["auroc"]["value"] is not None]
    if not known:
        return None
    rows = []
    for name, gain in known:
        ends = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
        rows.append((name, [Mark(gain["value"], "c1", f"{name}: {gain['value']:+.3f}{ends}", gain["low"], gain["high"])]))
    ends = [gain[end] for _, gain in known for end in ("value", "low", "high")]
    axis = spanning("AUROC out of fold, less that of round 0", [0.0, *ends])
    alt = "Gain in AUROC over round 0 with its paired 95 % interval; zero is no gain. " + "; ".join(m.title for _, (m,) in rows)
    return dot_rows(rows, axis, alt, reference=0.0)
