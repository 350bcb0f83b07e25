"""The sections of a comparison that have charts, each with its numbers as text."""

from typing import Any

import numpy as np

from pcam_ssl.compare.verdict import name_of, run_word, split_note
from pcam_ssl.render import document
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_chart, spanning
from pcam_ssl.render.document import Cell, Details, Legend, Paragraph, Section, Table, absent
from pcam_ssl.render.format import gain_numbers, interval, three

COLOURS = 8


def look(place: int) -> tuple[str, str]:
    """Colour and kind of line of the run at `place`; beyond eight runs lines are dashed."""
    return f"c{place % COLOURS + 1}", "dashed" if place // COLOURS % 2 else "line"


def score_rows(comparison: dict[str, Any]) -> document.Chart:
    """AUROC of every run with its interval, on one axis."""
    rows = []
    for run in comparison["runs"]:
        score = run["scores"]["auroc"]
        words = f"{run['name']}: {interval(score)}"
        rows.append((name_of(run, comparison), [Mark(score["value"], "c1", words, score["low"], score["high"])]))
    ends = [end for _, (mark,) in rows for end in (mark.value, mark.low) if end is not None]
    alt = "AUROC out of fold with 95 % intervals. " + "; ".join(mark.title for _, (mark,) in rows)
    return dot_chart(rows, Axis("AUROC out of fold", np.floor(min(ends) * 10) / 10, 1.0), alt)


def seed_rows(groups: list[dict[str, Any]]) -> document.Chart:
    """Difference in mean AUROC of each recipe to the first, with its interval."""
    gaps = [(group["name"], group["name"], group["against_first"]["auroc"]) for group in groups]
    return _gap_rows(gaps, "difference in AUROC, mean over seeds", "Differences in mean AUROC over seeds; numbers below")


def _gap_rows(gaps: list[tuple[str, str, dict[str, Any]]], axis: str, alt: str) -> document.Chart:
    """A row for each (label, name, difference)."""
    rows = [
        (label, [Mark(gap["value"], "c2", f"{name}: {gain_numbers(gap)}", gap["low"], gap["high"])]) for label, name, gap in gaps
    ]
    ends = [gap[key] for _, _, gap in gaps for key in ("value", "low", "high")]
    return dot_chart(rows, spanning(axis, [0.0, *ends]), alt, reference=0.0)


def differences(comparison: dict[str, Any]) -> Section:
    """Paired difference of each run to the first, with its interval."""
    title = f"AUROC against {comparison['first']}, paired"
    runs = [(run, run["against_first"]["auroc"]) for run in comparison["runs"][1:]]
    if any(gap["value"] is None for _, gap in runs):
        return absent(title, "the scored patches hold one class only")
    gaps = [(name_of(run, comparison), run["name"], gap) for run, gap in runs]
    listed = [[run["name"], gain_numbers(gap), run_word(run, comparison)] for run, gap in runs]
    note = (
        "Both runs score the same patches of the same resampled slides. A gain or a loss is named only where the interval excludes 0;"
        " even then the seed may explain it."
    )
    blocks = (
        _gap_rows(gaps, "difference in AUROC", "Paired differences in AUROC; numbers below"),
        Table(("run", "difference", "result"), listed),
        Paragraph(note, "note"),
    )
    return Section(title, blocks)


def correlations(comparison: dict[str, Any]) -> Section:
    """Pearson below, Spearman above the diagonal, as a table whose cells are shaded."""
    below, above = comparison["correlation"]["pearson"], comparison["correlation"]["spearman"]
    runs, n = comparison["runs"], len(comparison["runs"])
    known = [matrix[i][j] for matrix in (below, above) for i in range(n) for j in range(n) if matrix[i][j] is not None]
    lowest = min(0.9, np.floor(min(known, default=0.9) * 10) / 10)
    rows = []
    for i, run in enumerate(runs):
        cells = [Cell("") if i == j else _shaded((below if j < i else above)[i][j], lowest) for j in range(n)]
        rows.append([f"{i + 1} {name_of(run, comparison)}", *cells])
    head = ["run", *(Cell(str(i + 1), title=run["name"]) for i, run in enumerate(runs))]
    note = (
        f"Pearson below the diagonal, Spearman above; stronger blue is higher correlation (from {lowest:.1f} to 1)."
        " Runs that correlate less usually gain more from a blend."
    )
    return Section("Correlation of calibrated logits, out of fold", (Table(head, rows, look="heat"), Paragraph(note, "note")))


def _shaded(value: float | None, lowest: float) -> Cell:
    if value is None:
        return Cell("-")
    return Cell(f"{value:.2f}", shade=max(0.0, (value - lowest) / (1 - lowest)))


def learning(comparison: dict[str, Any]) -> list[Section]:
    """AUROC during training and training loss by epoch, one line for each run."""
    named = [
        ("AUROC during training", "auroc", "AUROC, one view"),
        ("Training loss", "train_loss", "training loss"),
    ]
    return [_learning(comparison, *words) for words in named]


def _learning(comparison: dict[str, Any], title: str, key: str, axis: str) -> Section:
    curves = [
        (place, run, run["learning"])
        for place, run in enumerate(comparison["runs"])
        # A run's tables share its network and so its curve.
        if run["learning"] and any(value is not None for value in run["learning"][key]) and run["table"] is None
    ]
    if not curves:
        return absent(title, "no run has recorded it by epoch")
    last = max(max(learning["epochs"]) for _, _, learning in curves)
    chart = Chart(
        Axis("epoch", 1, max(last, 2), whole=True),
        spanning(axis, [value for _, _, learning in curves for value in learning[key]]),
        f"{title} by epoch, {len(curves)} runs; numbers below",
    )
    entries = []
    for place, run, learning in curves:
        colour, kind = look(place)
        chart.line(learning["epochs"], learning[key], colour, run["name"], "" if kind == "line" else "dashed")
        chart.dots(learning["epochs"][-1:], learning[key][-1:], colour, [run["name"]], radius_px=3)
        entries.append((kind, colour, run["name"]))
    listed = [
        [epoch, *(three(dict(zip(learning["epochs"], learning[key], strict=True)).get(epoch)) for _, _, learning in curves)]
        for epoch in range(1, last + 1)
    ]
    where = {"inner": "inner slides", "fold": "the scored patches themselves"}
    watched = "Mean over folds."
    if key == "auroc":
        watched += f" AUROC on {' or '.join(sorted({where[learning['watched']] for _, _, learning in curves}))}, not comparable with the scores above."
    others = [run["name"] for run in comparison["runs"] if run["learning"] is None]
    without = f" Not recorded for: {', '.join(others)}." if others else ""
    numbers = Table(("epoch", *(run["name"] for _, run, _ in curves)), listed)
    blocks = (Legend(entries), chart.block(), Paragraph(watched + without, "note"), Details("Numbers", (numbers,)))
    return Section(f"{title} by epoch", blocks)


def held_out(comparison: dict[str, Any]) -> Section:
    """AUROC out of fold against AUROC on held-out slides; a leak puts a run below the line."""
    title = "Out-of-fold against held-out AUROC"
    points = [
        (place, run, split, run["scores"]["auroc"]["value"], score["value"])
        for place, run in enumerate(comparison["runs"])
        for split, score in (run["held_out"] or {}).items()
        if run["scores"]["auroc"]["value"] is not None and score["value"] is not None
    ]
    if not points:
        return absent(title, "no run has scores on held-out slides, because the dataset has no labelled test split")
    ends = spanning("", [value for point in points for value in point[3:]], at_least=0.01)
    chart = Chart(
        Axis("AUROC out of fold", ends.low, ends.high),
        Axis("AUROC on held-out slides", ends.low, ends.high),
        f"AUROC out of fold against AUROC on held-out slides, {len(points)} points; numbers below",
    )
    chart.line([ends.low, ends.high], [ends.low, ends.high], "c0", "equal AUROC", "dashed")
    for place, run, split, out_of_fold, held in points:
        words = f"{run['name']}: {three(out_of_fold)} out of fold, {three(held)} on {split_note(run, split)}"
        chart.dots([out_of_fold], [held], look(place)[0], [words], _dot(place), 5)
    entries = [(_dot(place), look(place)[0], run["name"]) for place, run, *_ in points]
    listed = [[run["name"], split_note(run, split), three(a), three(b), f"{b - a:+.3f}"] for _, run, split, a, b in points]
    note = "Below the line, out-of-fold AUROC is higher than held-out AUROC. Slides shared across folds cause this, and so do harder held-out slides."
    if any(run["in_pool"].get(split) for _, run, split, *_ in points):
        note += " Transductive points are not held out: networks or graph used the scored patches, without their labels."
    blocks = (
        Legend([*entries, ("dashed", "c0", "equal")]),
        chart.block(),
        Paragraph(note, "note"),
        Table(("run", "split", "out of fold", "held out", "difference"), listed),
    )
    return Section(title, blocks)


def _dot(place: int) -> str:
    return "square" if place // COLOURS % 2 else "circle"
