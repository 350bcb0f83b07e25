"""A label curve as a document: a page with a chart, and the text of a terminal."""

from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl import __version__
from pcam_ssl.label_curve.verdict import amount, comparison_sentences, conclusions, law_note, marks_of
from pcam_ssl.render import html, text
from pcam_ssl.render.charts import Axis, spanning
from pcam_ssl.render.charts import Chart as Plot
from pcam_ssl.render.document import (
    Chart,
    Code,
    Details,
    Document,
    Group,
    Items,
    Legend,
    Paragraph,
    Preformatted,
    Section,
    Table,
    Text,
    Verdict,
)
from pcam_ssl.render.format import gain_numbers, interval, scored_words, three

COLOURS = {"patches": "c1", "slides": "c2"}
WIDTH = 100
LABELS_SEEN = "labels that a network was trained on (log)"
ROUNDS_COLOUR = "c4"
ROUNDS_NOTE = (
    "With rounds: each fold uses the round of the best AUROC on its own inner slides, round 0 included. Differences are paired: same draws, same resampled"
    " slides. The control learned from the labels alone for as many steps. A gain needs both intervals above 0; each budget is tested for itself."
)
NOTE = (
    "Bands are intervals of the mean over draws, slides resampled; small dots are single draws. Labels and slides are those that a fold's network was"
    " trained on, mean over folds."
)


def page(curve: dict[str, Any]) -> str:
    """The whole page; the same curve gives the same text."""
    return html.page(curve_document(curve))


def curve_text(curve: dict[str, Any], by: str | None = None) -> str:
    """A table for each kind of budget (or for `by` alone), what more labels would bring, and the page to open."""
    shown = [by] if by is not None else list(curve["curves"])
    laws = [law_note(curve["curves"][each]) for each in shown]
    notes = [f"Interval: {curve['interval']}.", *(law for law in laws if law), *marks_of(curve)]
    blocks = [
        Paragraph(title(curve)),
        *(_table(curve["curves"][each]) for each in shown),
        *(_rounds_table(curve["curves"][each]) for each in shown),
        Items(notes, "note"),
        Items([said for each in shown for said in conclusions(curve, each)] + comparison_sentences(curve), "note"),
        Paragraph(f"page {Path(curve['out']) / 'label-curve.html'}"),
    ]
    return text.terminal(blocks, WIDTH)


def title(curve: dict[str, Any]) -> str:
    """'frozen on km: 1,243 patches (446 tumor) of 34 slides, 5 folds grouped by slides'."""
    return f"{curve['recipe']} on {Path(curve['dataset']).name}, AUROC out of fold: {scored_words(curve)}"


def curve_document(curve: dict[str, Any]) -> Document:
    """The whole curve: what more labels would bring, the charts, and the numbers."""
    said = [each for by in curve["curves"] for each in conclusions(curve, by)]
    asked = [one["rounds"] for one in curve["curves"].values() if one.get("rounds") is not None]
    told = [one["doubled"] for one in curve["curves"].values() if one["doubled"] is not None and one["doubled"]["told"]]
    level, badge = ("good", "More would help") if any(each["gain"]["value"] > 0 for each in told) else ("plain", "Not told to help")
    if asked:
        level, badge = (
            ("good", "Rounds gain") if any(each["gaining"] for each in asked) else ("plain", "No measurable gain by rounds")
        )
    marks = marks_of(curve)
    sections = [_section(one, by, len(curve["curves"]) > 1) for by, one in curve["curves"].items()]
    sections += [section for one in curve["curves"].values() if (section := _rounds_section(one)) is not None]
    body = (
        Verdict(
            "bad" if marks else level,
            "Scores marked too good" if marks else badge,
            said[0],
            remarks=[_with_code(each) for each in [*said[1:], *comparison_sentences(curve), *marks]],
            said=(Paragraph(f"{title(curve)}."),),
            shown=(*_charted(curve), Paragraph(NOTE, "note"), Paragraph(f"Intervals: {curve['interval']}.", "note")),
            look="compared",
        ),
        Group(sections, "pair"),
        _comparison(curve),
        Section("Provenance", (Preformatted("\n".join(command for command in curve["commands"].values() if command)),)),
    )
    return Document(
        f"{Path(curve['dataset']).name}: pcam-ssl label-curve",
        body,
        footer=f"Made by pcam-ssl {__version__} for research. Not for diagnosis.",
    )


def _with_code(said: str) -> Text:
    """The sentence with its command as code."""
    before, tick, rest = said.partition("`")
    command, _, after = rest.partition("`")
    return [before, Code(command), after] if tick else said


def _section(one: dict[str, Any], by: str, with_chart: bool) -> Section:
    law = law_note(one)
    blocks = (
        *(_own_chart(one, by) if with_chart else ()),
        _table(one),
        Paragraph(law, "note") if law else None,
        Details("AUROC of each draw", (_draws(one),)),
    )
    return Section(f"AUROC by {one['unit']}", blocks)


def _rounds_section(one: dict[str, Any]) -> Section | None:
    if (table := _rounds_table(one)) is None:
        return None
    return Section(f"Pseudo-label rounds by {one['unit']}", (table, Paragraph(ROUNDS_NOTE, "note")))


def _charted(curve: dict[str, Any]) -> tuple[Legend, Chart]:
    """The chart beside the verdict: that of the one curve, or both over labels."""
    curves = curve["curves"]
    if len(curves) == 1:
        return next(_own_chart(one, by) for by, one in curves.items())
    slides = curves["patches"]["groups"]
    shown = {"patches": f"labels spread over all {slides}", "slides": f"all labels of few {slides}"}
    places = {
        by: ([point["labels"] for point in one["points"]], [point["auroc"] for point in one["points"]])
        for by, one in curves.items()
    }
    every = [n for ns, _ in places.values() for n in ns]
    heights = spanning("", [score["value"] for _, scores in places.values() for score in scores], 0.01)
    words = "; ".join(f"{shown[by]}: " + ", ".join(three(score["value"]) for score in scores) for by, (_, scores) in places.items())
    chart = Plot(
        Axis(LABELS_SEEN, min(every) / 1.2, max(every) * 1.2, log=True),
        Axis("AUROC out of fold", heights.low, heights.high),
        f"AUROC out of fold against labels. {words}",
    )
    for by, (ns, scores) in places.items():
        chart.line(ns, [score["value"] for score in scores], COLOURS[by], shown[by])
        chart.dots(ns, [score["value"] for score in scores], COLOURS[by], [interval(score) for score in scores])
    return Legend([("line", COLOURS[by], shown[by]) for by in curves]), chart.block()


def _own_chart(one: dict[str, Any], by: str) -> tuple[Legend, Chart]:
    dashed = [("dashed", "c0", "power law")] if one["fit"] else []
    doubled = [("square", "c3", f"twice the {one['unit']}, by the law")] if one["doubled"] else []
    own = "labels alone, mean over draws" if one.get("rounds") else "mean over draws"
    rounds = [("line", ROUNDS_COLOUR, "with pseudo-label rounds")] if one.get("rounds") else []
    return Legend([("line", COLOURS[by], own), *rounds, *dashed, *doubled]), _chart(one, by)


def _chart(one: dict[str, Any], by: str) -> Chart:
    """AUROC against labels or slides on a log axis: band, draws, the law, and the doubled point."""
    points, unit, doubled, colour = one["points"], one["unit"], one["doubled"], COLOURS[by]
    ns = [point["labels" if by == "patches" else "slides"] for point in points]
    ends_x = [*ns, *([doubled["n"]] if doubled else [])]
    scores = [point["auroc"] for point in points]
    heights = [each[key] for each in scores for key in ("value", "low", "high")]
    heights += [value for point in points for value in point["draws"]["values"]]
    heights += [doubled["auroc"][key] for key in ("value", "low", "high")] if doubled else []
    with_rounds = [(n, point) for n, point in zip(ns, points, strict=True) if point.get("rounds") is not None]
    heights += [point["rounds"]["auroc"]["value"] for _, point in with_rounds]
    high = min(spanning("", heights).high, 1.0)
    low = min(spanning("", heights).low, high - 0.01)
    words = "; ".join(f"{point['name']}: {interval(point['auroc'])}" for point in points)
    words += "".join(f"; {point['name']} with rounds: {interval(point['rounds']['auroc'])}" for _, point in with_rounds)
    chart = Plot(
        Axis(f"{unit} that a network was trained on (log)", min(ends_x) / 1.2, max(ends_x) * 1.2, log=True),
        Axis("AUROC out of fold", max(low, 0.0), high),
        f"AUROC out of fold against {unit}, with 95 % intervals. {words}",
    )
    if all(score["low"] is not None for score in scores):
        chart.band(ns, [score["low"] for score in scores], [score["high"] for score in scores], colour)
    if one["fit"]:
        xs = np.geomspace(min(ends_x), max(ends_x), 60)
        fit = one["fit"]
        # A law of few noisy points may leave the chart.
        ys = [1 - fit["a"] - fit["b"] * x ** -fit["c"] for x in xs]
        chart.line(xs, [y if chart.y.low <= y <= chart.y.high else None for y in ys], "c0", "power law", "dashed")
    chart.line(ns, [score["value"] for score in scores], colour, "mean over draws")
    for point, n in zip(points, ns, strict=True):
        draws = point["draws"]["values"]
        titles = [f"{point['name']}, seed {seed}: {three(value)}" for seed, value in zip(one["seeds"], draws, strict=True)]
        chart.dots([n] * len(draws), draws, colour, titles, radius_px=2)
    chart.dots(
        ns, [score["value"] for score in scores], colour, [f"{point['name']}: {interval(point['auroc'])}" for point in points]
    )
    if with_rounds:
        places, values = [n for n, _ in with_rounds], [point["rounds"]["auroc"]["value"] for _, point in with_rounds]
        titles = [
            f"{point['name']} with rounds: {interval(point['rounds']['auroc'])}, {gain_numbers(point['rounds']['difference'])} over the labels alone"
            for _, point in with_rounds
        ]
        chart.line(places, values, ROUNDS_COLOUR, "with pseudo-label rounds")
        chart.dots(places, values, ROUNDS_COLOUR, titles, "square")
    if doubled:
        n, score = doubled["n"], doubled["auroc"]
        if score["low"] is not None:
            chart.line([n, n], np.clip([score["low"], score["high"]], chart.y.low, chart.y.high), "c3", f"twice: {interval(score)}")
        if chart.y.low <= score["value"] <= chart.y.high:
            chart.dots([n], [score["value"]], "c3", [f"twice the {unit}: {interval(score)}"], "square")
    return chart.block()


def _table(one: dict[str, Any]) -> Table:
    """A row a budget, and the doubled one."""
    rows = [
        [point["name"], amount(point["labels"]), amount(point["slides"]), interval(point["auroc"]), _spread(point["draws"])]
        for point in one["points"]
    ]
    if (doubled := one["doubled"]) is not None:
        seen = [amount(doubled["n"]), "-"] if one["by"] == "patches" else ["-", amount(doubled["n"])]
        rows.append(["twice that, by the law", *seen, interval(doubled["auroc"]), f"gain {gain_numbers(doubled['gain'])}"])
    return Table((f"budget of {one['unit']}", "labels seen", f"{one['groups']} seen", "AUROC", "over draws"), rows, align="lrrll")


def _rounds_table(one: dict[str, Any]) -> Table | None:
    """A row a budget with rounds: AUROC of the labels alone, with rounds, and the paired differences."""
    if one.get("rounds") is None:
        return None
    rows = [
        [
            point["name"],
            three(point["auroc"]["value"]),
            interval(rounds["auroc"]),
            gain_numbers(rounds["difference"]),
            gain_numbers(rounds["against_control"]) if rounds["against_control"] is not None else "no control",
            "yes" if rounds["gains"] else "no",
            f"{rounds['folds_in_rounds']} of {rounds['folds']}",
        ]
        for point in one["points"]
        if (rounds := point["rounds"]) is not None
    ]
    head = (
        f"budget of {one['unit']}",
        "alone",
        "with rounds",
        "over the labels alone",
        "over the control",
        "gain",
        "folds that chose a round",
    )
    return Table(head, rows, align="lrllllr")


def _spread(draws: dict[str, Any]) -> str:
    """'0.861 to 0.881 (sd 0.010)', or 'one draw'."""
    values = draws["values"]
    return "one draw" if draws["sd"] is None else f"{min(values):.3f} to {max(values):.3f} (sd {draws['sd']:.3f})"


def _draws(one: dict[str, Any]) -> Table:
    rows = [[point["name"], *(three(value) for value in point["draws"]["values"])] for point in one["points"]]
    return Table(("budget", *(f"seed {seed}" for seed in one["seeds"])), rows)


def _comparison(curve: dict[str, Any]) -> Section | None:
    """Labels spread over all slides against as many of few slides, at each budget of slides."""
    if (found := curve["patches_or_slides"]) is None:
        return None
    slides = next(iter(curve["curves"].values()))["groups"]
    rows = [[point["slides"], amount(point["labels"]), gain_numbers(point["difference"])] for point in found["points"]]
    rows.append(["mean", "", gain_numbers(found["mean"])])
    note = (
        f"AUROC of labels spread over all {slides} minus that of as many labels of few {slides}, on the same resampled slides and draws. The curve of labels is"
        " interpolated in log labels."
    )
    return Section("Patches or slides", (Table((slides, "labels seen", "difference"), rows), Paragraph(note, "note")))
