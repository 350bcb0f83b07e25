"""The charts of a report, each with its numbers as text."""

import numpy as np
from scipy.special import expit

from pcam_ssl.evaluation.curves import reliability
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_rows, legend, spanning
from pcam_ssl.render.format import split_words
from pcam_ssl.render.markup import Markup, absent, card, fold_out, table, tag, three
from pcam_ssl.report.curve_cards import NO_OOF
from pcam_ssl.runs.contents import Facts

COLOURS = 8
CHART_SLIDES, TABLE_SLIDES = 48, 1000


def forest(facts: Facts) -> Markup:
    """AUROC of network, floor and held-out splits, each with its interval, on one axis."""
    scores = facts.scores
    named = [("network, out of fold", "c1", scores["out_of_fold"]), ("colour floor", "c0", scores["floor"])]
    named += [(f"network, {split_words(split, report)}", "c2", report) for split, report in (scores["held_out"] or {}).items()]
    rows = []
    for name, colour, report in named:
        score = report and report["scores"]["auroc"]
        if score and score["value"] is not None:
            text = f"{name}: {three(score['value'])}" + (
                f" ({three(score['low'])} to {three(score['high'])})" if score["low"] is not None else ""
            )
            rows.append((name, [Mark(score["value"], colour, text, score["low"], score["high"])]))
    lowest = min([0.5] + [mark.value if mark.low is None else mark.low for _, (mark,) in rows])
    alt = "AUROC with 95 % intervals; 0.5 is guessing. " + "; ".join(mark.title for _, (mark,) in rows)
    return dot_rows(rows, Axis("AUROC (0.5 is guessing)", np.floor(lowest * 10) / 10, 1.0), alt, reference=0.5)


def reliability_card(facts: Facts) -> Markup:
    """Tumor share against prob, before and after temperature scaling, and what that did to NLL, Brier and ECE."""
    title = "Does a probability mean what it says?"
    if facts.oof is None:
        return absent(title, NO_OOF)
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
    chart.line([0, 1], [0, 1], "c0", "probs that mean what they say", "dashed")
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
    return card(
        title,
        legend(
            [
                ("circle", "c1", "calibrated"),
                ("square", "c2", "before calibration"),
                ("dashed", "c0", "ideal"),
                ("bar", "c0", "patches"),
            ]
        ),
        chart.svg(),
        table(["less is better", "before", "after"], numbers),
        tag("p", _calibration_text(facts), class_="note"),
        fold_out("Numbers of the chart", table(["calibration", "prob", "patches", "mean prob", "tumor"], listed)),
    )


def _calibration_text(facts: Facts) -> str:
    report = facts.scores["out_of_fold"]
    before, after = (report[when]["nll"]["value"] for when in ("scores_before_calibration", "scores"))
    if before == after:
        return "No fold has a temperature: probs are the network's own."
    if after < before:
        return "Temperatures fitted on inner slides lowered the NLL of the scored slides."
    return "Temperatures fitted on inner slides did not help here: the NLL of the scored slides is higher with them."


def slides_card(facts: Facts) -> Markup:
    """AUROC and accuracy of each slide; a slide with one class has no AUROC."""
    title, slides = "Slide by slide", facts.scores["out_of_fold"]["per_slide"]
    if not slides:
        return absent(title, "slides are not known; import again with `--wsi CSV`")
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
        notes.append(f"{one_class} of {len(slides)} slides hold one class only: they have no AUROC, which is not an AUROC of zero.")
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
    return card(
        title,
        legend([("circle", "c1", "AUROC"), ("square", "c2", "accuracy at prob 0.5")]),
        dot_rows(
            rows,
            Axis("score", np.floor(min(lowest, 0.5) * 10) / 10, 1.0),
            f"AUROC and accuracy of {len(rows)} slides; numbers below",
            reference=0.5,
        ),
        tag("p", " ".join(notes), class_="note"),
        fold_out(summary, table(["slide", "patches", "tumor", "AUROC", "accuracy", "mean prob"], listed)),
    )


def learning_cards(facts: Facts) -> list[Markup]:
    """Training loss, and AUROC on the patches the epoch is chosen by, of each fold by epoch."""
    if not facts.events:
        return [absent("Learning curves", "no fold has a metrics.jsonl")]
    first = next(iter(facts.events.values()))[0]
    watched = "fold" if "fold_auroc" in first else "inner"
    where = "the scored patches" if watched == "fold" else "inner slides"
    cards = [_learning_card(facts, "Training loss by epoch", "train_loss", "training loss")]
    if all(event.get(f"{watched}_auroc") is None for events in facts.events.values() for event in events):
        return [*cards, absent(f"AUROC on {where} by epoch", f"{where} hold one class only")]
    return [*cards, _learning_card(facts, f"AUROC on {where} by epoch", f"{watched}_auroc", "AUROC, one view")]


def _learning_card(facts: Facts, title: str, key: str, name: str) -> Markup:
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
    return card(
        title,
        legend(entries) if few else None,
        chart.svg(),
        tag("p", note, class_="note"),
        fold_out("Numbers", table(["epoch", *(f"fold {k}" for k in curves)], listed)),
    )
