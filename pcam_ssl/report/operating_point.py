"""What a chosen threshold does, and what acting on the probs is worth, each with its numbers as text. No torch."""

import numpy as np

from pcam_ssl.evaluation.decision_curve import THRESHOLDS, DecisionCurve, decision_curve
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_rows, legend
from pcam_ssl.render.markup import Markup, absent, card, fold_out, join, table, tag, three
from pcam_ssl.report.curve_cards import NO_OOF, ONE_CLASS
from pcam_ssl.report.operating_facts import OperatingPoint, operating_point
from pcam_ssl.report.operating_text import asked, better_where, by_slide, how_to_ask, percent, reached, threshold_text
from pcam_ssl.runs.contents import Facts

CHART_SLIDES, TABLE_SLIDES = 16, 1000
SHOWN = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def operating_card(facts: Facts, target: Target) -> Markup:
    """Confusion matrix, sensitivity and specificity reached, and what is missed by slide, at thresholds chosen on inner slides."""
    title = f"Operating point: {target.text}"
    point = operating_point(facts, target)
    if isinstance(point, str):
        return absent(title, point)
    return card(
        title,
        tag("p", reached(point)),
        tag("p", asked(point), class_="note"),
        _confusion(point),
        _scores(point),
        _slides(point),
        fold_out("Thresholds by fold", _thresholds(point)),
        tag("p", "For another point: ", tag("code", how_to_ask(facts, target)), class_="note"),
    )


def _confusion(point: OperatingPoint) -> Markup:
    hit, missed, alarm, right = (f"{count:,}" for count in point.confusion)
    rows = [["tumor", hit, tag("b", missed)], ["normal", tag("b", alarm), right]]
    return table(["patches that are", "called tumor", "called normal"], rows, "Confusion matrix, all folds")


def _scores(point: OperatingPoint) -> Markup:
    named = {"sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision (called tumor that is)"}
    rows = [[label, *percent(point.scores[name])] for name, label in named.items()]
    alarms = point.scores["false_positives_per_1000"]
    ends = "-" if alarms["low"] is None else f"{alarms['low']:.1f} to {alarms['high']:.1f}"
    rows.append(["false positives per 1,000 patches", "-" if alarms["value"] is None else f"{alarms['value']:.1f}", ends])
    shown = [[label, join([value, tag("small", ends) if ends != "-" else None])] for label, value, ends in rows]
    return table(["at this point", "value, 95 % interval"], shown)


def _slides(point: OperatingPoint) -> list[Markup | None]:
    with_tumor = point.slides[point.slides.tumor > 0]
    told = tag("p", by_slide(point), class_="note")
    if not len(with_tumor):
        return [told]
    rows = [
        (slide, [Mark(row.missed, "c2", f"{slide}: {row.missed} of {row.tumor} tumor patches missed, {row.alarms} false alarms")])
        for slide, row in with_tumor.head(CHART_SLIDES).iterrows()
    ]
    axis = Axis("tumor patches missed", 0, max(int(with_tumor.missed.max()), 1), whole=True)
    listed = [
        [slide, f"{row.patches:,}", f"{row.tumor:,}", f"{row.missed:,}", f"{row.alarms:,}"]
        for slide, row in point.slides.head(TABLE_SLIDES).iterrows()
    ]
    more = "" if len(point.slides) <= TABLE_SLIDES else f", the {TABLE_SLIDES:,} with most missed"
    head = ["slide", "patches", "tumor", "missed", "false alarms"]
    chart = (
        dot_rows(rows, axis, f"False negatives of {len(rows)} slides, most first; numbers below")
        if with_tumor.missed.any()
        else None
    )
    return [told, chart, fold_out(f"Numbers by slide{more}", table(head, listed))]


def _thresholds(point: OperatingPoint) -> Markup:
    rows = [
        [found.fold, threshold_text(found), f"{found.n:,}", f"{found.n_positive:,}", found.n_slides or "-"]
        for found in point.thresholds
    ]
    return table(["fold", "called tumor from prob", "inner patches", "tumor", "slides"], rows)


def decision_card(facts: Facts) -> Markup:
    """Net benefit by threshold of prob: network, treat all, treat none."""
    title = "Is it worth acting on?"
    if facts.oof is None:
        return absent(title, NO_OOF)
    rows = facts.labelled
    labels = rows.label.to_numpy(np.int64)
    if not len(labels) or labels.min() == labels.max():
        return absent(title, ONE_CLASS)
    curve = decision_curve(labels, rows.prob.to_numpy(), facts.groups, seed=facts.recipe.get("seed", 0))
    note = (
        "Decision curve (Vickers and Elkin 2006). Whoever acts from prob p on holds one missed tumor patch for as bad as (1 - p) / p "
        "false alarms. Net benefit: true positives, less false ones at that price, per patch; the band is 95 % at each threshold."
    )
    numbers = [[f"{p:.2f}", *_numbers(curve, round(100 * p) - 1)] for p in SHOWN]
    entries = [("line", "c1", "network"), ("line", "c2", "treat all"), ("dashed", "c0", "treat none")]
    return card(
        title,
        tag("p", better_where(curve)),
        legend(entries),
        _decision_chart(curve, better_where(curve)).svg(),
        tag("p", note, class_="note"),
        fold_out("Numbers", table(["from prob", "network", "95 % interval", "treat all"], numbers)),
    )


def _decision_chart(curve: DecisionCurve, told: str) -> Chart:
    top = float(max(curve.network.max(), curve.treat_all.max(), 0.01)) * 1.05
    bottom = -top / 4
    chart = Chart(Axis("threshold of prob", 0, 1), Axis("net benefit per patch", bottom, top), f"Net benefit. {told} Numbers below")
    if curve.low is not None:
        chart.band(THRESHOLDS, *(np.clip(ends, bottom, top) for ends in (curve.low, curve.high)), "c1")
    chart.line([0, 1], [0, 0], "c0", "treat none", "dashed")
    for values, colour, name in ((curve.treat_all, "c2", "treat all"), (curve.network, "c1", "network")):
        chart.line(THRESHOLDS, np.where(values < bottom, np.nan, values), colour, name)
    return chart


def _numbers(curve: DecisionCurve, place: int) -> list[str]:
    ends = "-" if curve.low is None else f"{curve.low[place]:.3f} to {curve.high[place]:.3f}"
    return [three(curve.network[place]), ends, three(curve.treat_all[place])]
