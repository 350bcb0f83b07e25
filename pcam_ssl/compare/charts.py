"""The charts of a comparison, each with its numbers as text."""

from typing import Any

import numpy as np

from pcam_ssl.compare.verdict import name_of, run_word, split_note
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_rows, legend, spanning
from pcam_ssl.render.format import gain_numbers
from pcam_ssl.render.markup import Markup, absent, card, fold_out, join, table, tag, three

COLOURS = 8


def look(place: int) -> tuple[str, str]:
    """Colour and kind of line of the run at `place`; beyond eight runs lines are dashed."""
    return f"c{place % COLOURS + 1}", "dashed" if place // COLOURS % 2 else "line"


def score_rows(comparison: dict[str, Any]) -> Markup:
    """AUROC of every run with its interval, on one axis."""
    rows = []
    for run in comparison["runs"]:
        score = run["scores"]["auroc"]
        text = f"{run['name']}: {three(score['value'])}"
        if score["low"] is not None:
            text += f" ({three(score['low'])} to {three(score['high'])})"
        rows.append((name_of(run, comparison), [Mark(score["value"], "c1", text, score["low"], score["high"])]))
    ends = [end for _, (mark,) in rows for end in (mark.value, mark.low) if end is not None]
    alt = "AUROC out of fold with 95 % intervals. " + "; ".join(mark.title for _, (mark,) in rows)
    return dot_rows(rows, Axis("AUROC out of fold", np.floor(min(ends) * 10) / 10, 1.0), alt)


def difference_card(comparison: dict[str, Any]) -> Markup:
    """Paired difference of each run to the first, with its interval."""
    title, rows, ends = f"AUROC against {comparison['first']}, paired", [], [0.0]
    for run in comparison["runs"][1:]:
        gap = run["against_first"]["auroc"]
        if gap["value"] is None:
            return absent(title, "the scored patches hold one class only")
        rows.append(
            (name_of(run, comparison), [Mark(gap["value"], "c2", f"{run['name']}: {gain_numbers(gap)}", gap["low"], gap["high"])])
        )
        ends += [end for end in (gap["value"], gap["low"], gap["high"]) if end is not None]
    listed = [
        [run["name"], gain_numbers(run["against_first"]["auroc"]), run_word(run, comparison)] for run in comparison["runs"][1:]
    ]
    alt = "Paired differences in AUROC; numbers below"
    return card(
        title,
        dot_rows(rows, spanning("difference in AUROC", ends), alt, reference=0.0),
        table(["run", "difference", "shows"], listed),
        tag(
            "p",
            "Both runs score the same patches of the same resampled slides; a gain or a loss only where the interval leaves out 0, and even that may be the seed's.",
            class_="note",
        ),
    )


def correlation_card(comparison: dict[str, Any]) -> Markup:
    """Pearson below, Spearman above the diagonal, as a table whose cells are shaded."""
    below, above = comparison["correlation"]["pearson"], comparison["correlation"]["spearman"]
    runs, n = comparison["runs"], len(comparison["runs"])
    known = [matrix[i][j] for matrix in (below, above) for i in range(n) for j in range(n) if matrix[i][j] is not None]
    lowest = min(0.9, np.floor(min(known, default=0.9) * 10) / 10)
    rows = []
    for i, run in enumerate(runs):
        cells = [_cell(None if i == j else (below if j < i else above)[i][j], i == j, lowest) for j in range(n)]
        rows.append(tag("tr", tag("th", f"{i + 1} {run['name']}", scope="row"), cells))
    head = tag(
        "tr", tag("th", "run", scope="col"), [tag("th", i + 1, scope="col", title=run["name"]) for i, run in enumerate(runs)]
    )
    name = "Correlation of calibrated logits, out of fold"
    drawn = tag("table", tag("thead", head), tag("tbody", rows), class_="heat")
    note = (
        f"Pearson below the diagonal, Spearman above; the darker, the more alike (from {lowest:.1f} to 1)."
        " Runs that are less alike have more to give each other in a blend."
    )
    return card(name, tag("div", drawn, class_="scroll", tabindex=0, role="region", aria_label=name), tag("p", note, class_="note"))


def _cell(value: float | None, diagonal: bool, lowest: float) -> Markup:
    if value is None:
        return tag("td", "" if diagonal else "-")
    return tag("td", f"{value:.2f}", style=f"--v:{max(0.0, (value - lowest) / (1 - lowest)):.2f}")


def learning_cards(comparison: dict[str, Any]) -> list[Markup]:
    """AUROC while training and training loss by epoch, a line a run."""
    named = [
        ("AUROC while training", "auroc", "AUROC, one view"),
        ("Training loss", "train_loss", "training loss"),
    ]
    return [_learning_card(comparison, *words) for words in named]


def _learning_card(comparison: dict[str, Any], title: str, key: str, axis: str) -> Markup:
    curves = [
        (place, run, run["learning"])
        for place, run in enumerate(comparison["runs"])
        # A run's tables share its network and so its curve.
        if run["learning"] and any(value is not None for value in run["learning"][key]) and run["table"] is None
    ]
    if not curves:
        return absent(title, "no run has a history of epochs with it")
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
        watched += f" AUROC on {' or '.join(sorted({where[learning['watched']] for _, _, learning in curves}))}, never to be compared with the scores above."
    others = [run["name"] for run in comparison["runs"] if run["learning"] is None]
    without = f" Without a history: {', '.join(others)}." if others else ""
    head = ["epoch", *(run["name"] for _, run, _ in curves)]
    return card(
        f"{title} by epoch",
        legend(entries),
        chart.svg(),
        tag("p", watched + without, class_="note"),
        fold_out("Numbers", table(head, listed)),
    )


def leak_card(comparison: dict[str, Any]) -> Markup:
    """AUROC out of fold against AUROC on held-out slides; a leak draws a run below the line."""
    title = "Do the folds keep their promise on held-out slides?"
    points = [
        (place, run, split, run["scores"]["auroc"]["value"], score["value"])
        for place, run in enumerate(comparison["runs"])
        for split, score in (run["held_out"] or {}).items()
        if run["scores"]["auroc"]["value"] is not None and score["value"] is not None
    ]
    if not points:
        return absent(title, "no run has scores on held-out slides, for the dataset has no labelled test split")
    ends = spanning("", [value for point in points for value in point[3:]], at_least=0.01)
    chart = Chart(
        Axis("AUROC out of fold", ends.low, ends.high),
        Axis("AUROC on held-out slides", ends.low, ends.high),
        f"AUROC out of fold against AUROC on held-out slides, {len(points)} points; numbers below",
    )
    chart.line([ends.low, ends.high], [ends.low, ends.high], "c0", "folds as hard as held-out slides", "dashed")
    for place, run, split, out_of_fold, held_out in points:
        said = f"{run['name']}: {three(out_of_fold)} out of fold, {three(held_out)} on {split_note(run, split)}"
        chart.dots([out_of_fold], [held_out], look(place)[0], [said], "square" if place // COLOURS % 2 else "circle", 5)
    entries = [("square" if place // COLOURS % 2 else "circle", look(place)[0], run["name"]) for place, run, *_ in points]
    listed = [[run["name"], split_note(run, split), three(a), three(b), f"{b - a:+.3f}"] for _, run, split, a, b in points]
    note = "Below the line the folds promise more than held-out slides keep: slides shared across folds do that, and so do harder slides."
    if any(run["in_pool"].get(split) for _, run, split, *_ in points):
        note += " Transductive points are no held-out ones: those networks learned from the scored patches, without their labels."
    return card(
        title,
        legend([*entries, ("dashed", "c0", "equal")]),
        chart.svg(),
        tag("p", note, class_="note"),
        join([table(["run", "split", "out of fold", "held out", "difference"], listed)]),
    )
