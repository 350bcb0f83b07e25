"""Charts of a report: ROC, precision-recall, reliability, slides, learning curves; each with its numbers as text."""

import numpy as np
from scipy.special import expit

from pcam_ssl.evaluation.curves import GRID, RESAMPLES, Curve, precision_recall, reliability, roc
from pcam_ssl.render import document
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_chart, spanning
from pcam_ssl.render.document import Details, Legend, Paragraph, Section, Table
from pcam_ssl.render.format import interval, split_words, three
from pcam_ssl.runs.contents import Facts

COLOURS = 8
CHART_SLIDES, TABLE_SLIDES = 48, 1000


def forest(facts: Facts) -> document.Chart:
    """AUROC of the network, the colour baseline and held-out splits, each with its interval, on one axis."""
    scores = facts.scores
    named = [("network, out of fold", "c1", scores["out_of_fold"]), ("colour baseline", "c0", scores["floor"])]
    named += [(f"network, {split_words(split, report)}", "c2", report) for split, report in (scores["held_out"] or {}).items()]
    rows = []
    for name, colour, report in named:
        score = report and report["scores"]["auroc"]
        if score and score["value"] is not None:
            text = f"{name}: {interval(score)}"
            rows.append((name, [Mark(score["value"], colour, text, score["low"], score["high"])]))
    lowest = min([0.5] + [mark.value if mark.low is None else mark.low for _, (mark,) in rows])
    alt = "AUROC with 95 % intervals; 0.5 is chance. " + "; ".join(mark.title for _, (mark,) in rows)
    return dot_chart(rows, Axis("AUROC (0.5 is chance)", np.floor(lowest * 10) / 10, 1.0), alt, reference=0.5)


def reliability_section(facts: Facts) -> Section:
    """Share of tumor by prob before and after temperature scaling, with NLL, Brier and ECE of both."""
    if facts.oof is None:
        return Section(absent=NO_OOF)
    rows = facts.labelled
    labels = rows.label.to_numpy(np.int64)
    before, after = reliability(labels, expit(rows.logit.to_numpy())), reliability(labels, rows.prob.to_numpy())
    report = facts.scores["out_of_fold"]
    numbers = [
        [label, *(three(report[when][name]["value"]) for when in ("scores_before_calibration", "scores"))]
        for name, label in (("nll", "NLL"), ("brier", "Brier"), ("ece", "ECE"))
    ]
    alt = f"Reliability; ECE {numbers[2][1]} before calibration and {numbers[2][2]} after; numbers below"
    chart = Chart(Axis("prob of tumor", 0, 1), Axis("share of tumor", 0, 1), alt)
    most = max(b.n for b in after)
    chart.bars(
        [b.left for b in after],
        [b.right for b in after],
        [0.25 * b.n / most for b in after],
        "c0",
        [f"{b.n:,} patches" for b in after],
    )
    chart.line([0, 1], [0, 1], "c0", "perfect calibration", "dashed")
    for bins, colour, shape in ((before, "c2", "square"), (after, "c1", "circle")):
        xs, ys = [b.mean_prob for b in bins], [b.tumor_share for b in bins]
        chart.line(xs, ys, colour)
        chart.dots(
            xs, ys, colour, [f"{b.n:,} patches: mean prob {b.mean_prob:.3f}, tumor {b.tumor_share:.3f}" for b in bins], shape
        )
    listed = [
        [when, f"{b.left:.2f} to {b.right:.2f}", f"{b.n:,}", three(b.mean_prob), three(b.tumor_share)]
        for when, bins in (("before", before), ("after", after))
        for b in bins
    ]
    return Section(
        blocks=(
            Legend(
                [
                    ("circle", "c1", "calibrated"),
                    ("square", "c2", "before calibration"),
                    ("dashed", "c0", "perfect calibration"),
                    ("bar", "c0", "patches"),
                ]
            ),
            chart.block(),
            Table(["lower is better", "before", "after"], numbers),
            Paragraph(_calibration_text(facts), "note"),
            Details("Numbers of the chart", (Table(["calibration", "prob", "patches", "mean prob", "tumor"], listed),)),
        )
    )


def _calibration_text(facts: Facts) -> str:
    report = facts.scores["out_of_fold"]
    before, after = (report[when]["nll"]["value"] for when in ("scores_before_calibration", "scores"))
    if before == after:
        return "No temperature was fitted: the probs are those of the networks."
    if after < before:
        return "Temperatures fitted on inner slides lowered the NLL of the scored slides."
    return "Temperatures fitted on inner slides did not help here: the NLL of the scored slides is higher with them."


def slides_section(facts: Facts) -> Section:
    """AUROC and accuracy of each slide; a slide with one class has no AUROC."""
    slides = facts.scores["out_of_fold"]["per_slide"]
    if not slides:
        return Section(absent="slides are not known; import again with `--wsi CSV`")
    slides = sorted(slides, key=lambda slide: (slide["scores"]["accuracy"], slide["wsi"]))
    one_class = sum(slide["scores"]["auroc"] is None for slide in slides)
    rows = []
    for slide in slides[:CHART_SLIDES]:
        marks = [
            Mark(
                slide["scores"]["accuracy"], "c2", f"{slide['wsi']}: accuracy {three(slide['scores']['accuracy'])}", shape="square"
            )
        ]
        if slide["scores"]["auroc"] is not None:
            marks.append(Mark(slide["scores"]["auroc"], "c1", f"{slide['wsi']}: AUROC {three(slide['scores']['auroc'])}"))
        rows.append((slide["wsi"], marks))
    lowest = min(mark.value for _, marks in rows for mark in marks)
    notes = [
        f"{len(slides)} slides, least accurate first."
        if len(slides) <= CHART_SLIDES
        else f"The {CHART_SLIDES} least accurate of {len(slides):,} slides."
    ]
    if one_class:
        notes.append(f"{one_class} of {len(slides)} slides hold one class only, so their AUROC is not defined.")
    listed = [
        [
            slide["wsi"],
            f"{slide['n']:,}",
            f"{slide['n_positive']:,}",
            *(three(slide["scores"][name]) for name in ("auroc", "accuracy", "mean_prob")),
        ]
        for slide in slides[:TABLE_SLIDES]
    ]
    summary = (
        "Numbers" if len(slides) <= TABLE_SLIDES else f"Numbers of the {TABLE_SLIDES:,} least accurate; all are in scores.json"
    )
    return Section(
        blocks=(
            Legend([("circle", "c1", "AUROC"), ("square", "c2", "accuracy at prob 0.5")]),
            dot_chart(
                rows,
                Axis("score", np.floor(min(lowest, 0.5) * 10) / 10, 1.0),
                f"AUROC and accuracy of {len(rows)} slides; numbers below",
                reference=0.5,
            ),
            Paragraph(" ".join(notes), "note"),
            Details(summary, (Table(["slide", "patches", "tumor", "AUROC", "accuracy", "mean prob"], listed),)),
        )
    )


def training_loss_section(facts: Facts) -> Section:
    """Training loss of each fold by epoch."""
    if not facts.events:
        return Section("Learning curves", absent="no fold has a metrics.jsonl")
    return _learning_section(facts, "Training loss by epoch", "train_loss", "training loss")


def watched_section(facts: Facts) -> Section | None:
    """AUROC of each fold by epoch, on the patches by which the epoch is chosen."""
    if not facts.events:
        return None
    first = next(iter(facts.events.values()))[0]
    watched = "fold" if "fold_auroc" in first else "inner"
    where = "the scored patches" if watched == "fold" else "inner slides"
    title = f"AUROC on {where} by epoch"
    if all(event.get(f"{watched}_auroc") is None for events in facts.events.values() for event in events):
        return Section(title, absent=f"{where} hold one class only")
    return _learning_section(facts, title, f"{watched}_auroc", "AUROC, one view")


def _learning_section(facts: Facts, title: str, key: str, name: str) -> Section:
    curves = {k: [(event["epoch"], event.get(key)) for event in events] for k, events in facts.events.items()}
    epochs = sorted({epoch for curve in curves.values() for epoch, _ in curve})
    chart = Chart(
        Axis("epoch", min(epochs[0], 1), max(epochs[-1], 2), whole=True),
        spanning(name, [value for curve in curves.values() for _, value in curve]),
        f"{title}, {len(curves)} folds, {len(epochs)} epochs; numbers below",
    )
    entries = []
    for k, curve in curves.items():
        colour = f"c{k % COLOURS + 1}" if len(curves) <= COLOURS else "c1"
        chart.line([epoch for epoch, _ in curve], [value for _, value in curve], colour, f"fold {k}", "thin")
        entries.append(("line", colour, f"fold {k}"))
        kept = facts.fold_facts.get(k, {}).get("epoch")
        chosen = [(epoch, value) for epoch, value in curve if epoch == kept and value is not None]
        chart.dots([epoch for epoch, _ in chosen], [value for _, value in chosen], colour, [f"fold {k}, epoch {kept}"])
    listed = [[epoch, *(three(dict(curve).get(epoch)) for curve in curves.values())] for epoch in epochs]
    few = len(curves) <= COLOURS
    note = "The dot marks the epoch that was kept." + ("" if few else f" One line for each of {len(curves)} folds.")
    return Section(
        title,
        (
            Legend(entries) if few else None,
            chart.block(),
            Paragraph(note, "note"),
            Details("Numbers", (Table(["epoch", *(f"fold {k}" for k in curves)], listed),)),
        ),
    )


NO_OOF = "oof.parquet is not in the run folder"
ONE_CLASS = "the scored patches hold one class only"
FALSE_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
RECALLS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)


def roc_section(facts: Facts) -> Section:
    """The ROC curve with its confidence band."""
    if isinstance(curve := _curve(facts, roc), str):
        return Section(absent=curve)
    area = three(facts.scores["out_of_fold"]["scores"]["auroc"]["value"])
    chart = Chart(
        Axis("false positive rate", 0, 1),
        Axis("true positive rate", 0, 1),
        f"ROC curve, area {area}; {_numbers_at(curve, FALSE_RATES)}",
    )
    chart.line([0, 1], [0, 1], "c0", "chance", "dashed")
    entries = [("line", "c1", f"network, out of fold: AUROC {area}"), ("dashed", "c0", "chance")]
    return _curve_section(facts, chart, curve, entries, ("false positive rate", "true positive rate"), FALSE_RATES)


def precision_section(facts: Facts) -> Section:
    """Precision by recall with its confidence band."""
    if isinstance(curve := _curve(facts, precision_recall), str):
        return Section(absent=curve)
    share = facts.labelled.label.to_numpy(np.int64).mean()
    area = three(facts.scores["out_of_fold"]["scores"]["average_precision"]["value"])
    alt = f"Precision by recall, average precision {area}, chance {share:.3f}; {_numbers_at(curve, RECALLS)}"
    chart = Chart(Axis("recall (true positive rate)", 0, 1), Axis("precision", 0, 1), alt)
    chart.line([0, 1], [share, share], "c0", f"chance: {share:.1%} of the patches are tumor", "dashed")
    entries = [("line", "c1", f"network, out of fold: average precision {area}"), ("dashed", "c0", f"chance, {share:.3f}")]
    return _curve_section(facts, chart, curve, entries, ("recall", "precision"), RECALLS)


def _curve(facts: Facts, curve) -> Curve | str:
    """A curve of the out-of-fold predictions, or why there is none."""
    if facts.oof is None:
        return NO_OOF
    rows = facts.labelled
    labels = rows.label.to_numpy(np.int64)
    if not len(labels) or labels.min() == labels.max():
        return ONE_CLASS
    return curve(labels, rows.prob.to_numpy(), facts.groups, seed=facts.recipe.get("seed", 0))


def _curve_section(facts: Facts, chart: Chart, curve: Curve, entries: list, head: tuple[str, str], places) -> Section:
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
    # Constant predictions are noted once, beside the ROC curve.
    constant = None if curve.steps else _constant(facts.labelled.prob.to_numpy())
    notes = [Paragraph(note, "note") for note in (constant, _band_text(facts, curve)) if note]
    return Section(blocks=(Legend(entries), chart.block(), *notes, Details("Numbers", (Table([*head, "95 % interval"], numbers),))))


def _numbers_at(curve: Curve, places) -> str:
    return ", ".join(f"{curve.at(place)[0]:.1%} at {place:.0%}" for place in places)


def _constant(probs: np.ndarray) -> str | None:
    same = len(probs) and probs.min() == probs.max()
    return f"Every patch has the same prob ({probs[0]:.3f}), so no threshold separates the classes." if same else None


def _band_text(facts: Facts, curve: Curve) -> str:
    if curve.low is None:
        return "No confidence band: there is nothing to resample."
    unit = "patches" if facts.groups is None else facts.scores["grouping"].replace("none", "slides")
    return (
        f"Band: 95 %, Student's t on {RESAMPLES} resamples of {unit}, at each {'recall' if curve.steps else 'false positive rate'}."
    )
