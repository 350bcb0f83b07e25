"""ROC and precision-recall of the out-of-fold predictions, each with its band and its numbers as text. No torch."""

import numpy as np

from pcam_ssl.evaluation.curves import GRID, RESAMPLES, Curve, precision_recall, roc
from pcam_ssl.render.charts import Axis, Chart, legend
from pcam_ssl.render.markup import Markup, absent, card, fold_out, table, tag, three
from pcam_ssl.runs.contents import Facts

NO_OOF = "oof.parquet is not in the run folder"
ONE_CLASS = "the scored patches hold one class only"
FALSE_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def curve_cards(facts: Facts) -> list[Markup]:
    """The ROC curve, and the precision-recall curve."""
    titles = ("ROC curve", "Precision and recall")
    if facts.oof is None:
        return [absent(title, NO_OOF) for title in titles]
    rows = facts.labelled
    labels, probs = rows.label.to_numpy(np.int64), rows.prob.to_numpy()
    if not len(labels) or labels.min() == labels.max():
        return [absent(title, ONE_CLASS) for title in titles]
    curves = [curve(labels, probs, facts.groups, seed=facts.recipe.get("seed", 0)) for curve in (roc, precision_recall)]
    notes = [_constant(probs), *(_band_text(facts, curve) for curve in curves)]
    return [
        _roc_card(facts, titles[0], curves[0], notes[:2]),
        _precision_card(facts, titles[1], curves[1], labels.mean(), notes[::2]),
    ]


def _roc_card(facts: Facts, title: str, curve: Curve, notes: list) -> Markup:
    area = three(facts.scores["out_of_fold"]["scores"]["auroc"]["value"])
    chart = Chart(
        Axis("false positive rate", 0, 1), Axis("true positive rate", 0, 1), f"ROC curve, area {area}; {_told(curve, FALSE_RATES)}"
    )
    chart.line([0, 1], [0, 1], "c0", "guessing", "dashed")
    entries = [("line", "c1", f"network, out of fold: AUROC {area}"), ("dashed", "c0", "guessing")]
    return _card(title, chart, curve, entries, notes, ("false positive rate", "true positive rate"), FALSE_RATES)


def _precision_card(facts: Facts, title: str, curve: Curve, share: float, notes: list) -> Markup:
    area = three(facts.scores["out_of_fold"]["scores"]["average_precision"]["value"])
    alt = f"Precision by recall, average precision {area}, guessing {share:.3f}; {_told(curve, RECALLS)}"
    chart = Chart(Axis("recall (true positive rate)", 0, 1), Axis("precision", 0, 1), alt)
    chart.line([0, 1], [share, share], "c0", f"guessing: {share:.1%} of the patches are tumor", "dashed")
    entries = [("line", "c1", f"network, out of fold: average precision {area}"), ("dashed", "c0", f"guessing, {share:.3f}")]
    return _card(title, chart, curve, entries, notes, ("recall", "precision"), RECALLS)


def _card(title: str, chart: Chart, curve: Curve, entries: list, notes: list, head: tuple[str, str], places) -> Markup:
    if curve.low is not None:
        chart.band(GRID, curve.low, curve.high, "c1")
    xs, ys = curve.x, curve.y
    if curve.steps:
        xs, ys = np.append(0, np.repeat(xs, 2)[:-1]), np.repeat(ys, 2)
    chart.line(xs, ys, "c1", "network, out of fold")
    numbers = [
        [f"{place:.0%}", f"{value:.1%}", "-" if low is None else f"{low:.1%} to {high:.1%}"]
        for place, (value, low, high) in ((place, curve.at(place)) for place in places)
    ]
    return card(
        title,
        legend(entries),
        chart.svg(),
        [tag("p", note, class_="note") for note in notes if note],
        fold_out("Numbers", table([*head, "95 % interval"], numbers)),
    )


def _told(curve: Curve, places) -> str:
    return ", ".join(f"{curve.at(place)[0]:.1%} at {place:.0%}" for place in places)


def _constant(probs: np.ndarray) -> str | None:
    same = len(probs) and probs.min() == probs.max()
    return f"Every patch has the same prob ({probs[0]:.3f}), so no threshold tells patches apart." if same else None


def _band_text(facts: Facts, curve: Curve) -> str:
    if curve.low is None:
        return "No band: there is nothing to resample."
    unit = "patches" if facts.groups is None else facts.scores["grouping"].replace("none", "slides")
    return (
        f"Band: 95 %, Student's t on {RESAMPLES} resamples of {unit}, at each {'recall' if curve.steps else 'false positive rate'}."
    )
