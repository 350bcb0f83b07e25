"""Sections of a report: scores, folds, test-time views, retrieval, provenance."""

import shlex
from typing import Any

from pcam_ssl.blending.report import blend_command
from pcam_ssl.recipe.loading import flatten
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.render import document
from pcam_ssl.render.document import Details, Paragraph, Preformatted, Section, Table, Tiles
from pcam_ssl.render.format import (
    NAMES,
    WITHIN_FOLDS,
    by_knn,
    count,
    counts_text,
    out_of_fold_words,
    sentence,
    split_words,
    three,
    transductive_sentence,
    with_interval,
)
from pcam_ssl.report.figures import forest
from pcam_ssl.report.verdict import Verdict, what_was_done
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import ROUNDS


def verdict_block(facts: Facts, verdict: Verdict) -> document.Verdict:
    """The top of the page: the verdict, AUROC beside that of the colour baseline, and what was trained."""
    scores = facts.scores
    tiles = [(f"AUROC {out_of_fold_words(scores)}", with_interval(scores["out_of_fold"]["scores"]["auroc"]), "c1")]
    if scores["floor"]:
        tiles.append(("Colour baseline", with_interval(scores["floor"]["scores"]["auroc"]), "c0"))
        tiles.append(("Paired difference", with_interval(scores["above_floor"]["auroc"], signed=True), ""))
    for split, report in (scores["held_out"] or {}).items():
        tiles.append((f"AUROC {split_words(split, report)}", with_interval(report["scores"]["auroc"]), "c2"))
    shown = (Tiles(tiles), forest(facts), Paragraph(scores["out_of_fold"]["interval"], "note"))
    done = document.Facts(what_was_done(facts))
    return document.Verdict(verdict.level, verdict.badge, verdict.headline, verdict.remarks, shown=shown, facts=done)


def score_section(facts: Facts) -> Section:
    """All out-of-fold scores with intervals, those of the colour baseline, and paired differences."""
    scores = facts.scores
    out, floor, above = scores["out_of_fold"], scores["floor"], scores["above_floor"]
    columns = [out["scores"]] + ([floor["scores"], above] if floor else [])
    rows = [[label, *(with_interval(column[name], column is above) for column in columns)] for name, label in NAMES.items()]
    if out["within_folds"]["auroc"]["folds"] > 1:
        within = [with_interval(report["within_folds"]["auroc"]) for report in ([out, floor] if floor else [out])]
        rows.insert(1, [WITHIN_FOLDS, *within, *(["-"] if floor else [])])
    notes = [f"{counts_text(out)}. Intervals: {out['interval']}."]
    if not floor:
        notes.append("No colour baseline: the recipe sets score.floor to false.")
    if any(row[1] == "-" for row in rows):
        notes.append("- : not defined, because a class is absent.")
    head = ["score", "network", *(["colour baseline", "difference"] if floor else [])]
    return Section(blocks=(Paragraph(" ".join(notes), "note"), Table(head, rows)))


def held_out_section(facts: Facts) -> Section:
    """Scores of the mean of all folds on splits whose labels were used neither for training nor for any choice."""
    if not facts.scores["held_out"]:
        return Section(absent="the dataset has no labelled test split")
    parts: list[Paragraph | Table] = []
    for split, report in facts.scores["held_out"].items():
        rows = [[label, with_interval(report["scores"][name])] for name, label in NAMES.items()]
        parts.append(
            Paragraph(f"Split {split}, mean of all folds: {counts_text(report)}. Intervals: {report['interval']}.", "note")
        )
        parts.append(Table(["score", f"network on {split}"], rows))
    if (text := transductive_sentence(facts.scores)) is None:
        return Section(blocks=parts)
    return Section("Transductive scores", (Paragraph(f"{sentence(text)}.", "note"), *parts))


def folds_section(facts: Facts) -> Section:
    """One line for each fold: patches, scores, the epoch kept, the temperature, seconds."""
    rows, reasons = [], []
    for fold in facts.scores["out_of_fold"]["per_fold"]:
        made = facts.fold_facts.get(fold["fold"], {})
        calibration = made.get("calibration", {})
        if calibration.get("reason"):
            reasons.append(f"Fold {fold['fold']}: {calibration['reason']}.")
        counts = [
            count(made.get("train")),
            count(made.get("inner")),
            count(fold["n"]),
            count(fold["n_positive"]),
            count(fold["n_slides"]),
        ]
        values = [three(fold["scores"][name]) for name in ("auroc", "average_precision", "balanced_accuracy", "nll", "ece")]
        rows.append(
            [
                fold["fold"],
                *counts,
                *values,
                made.get("epoch", "-"),
                three(calibration.get("temperature")),
                made.get("seconds", "-"),
            ]
        )
    head = [
        "fold",
        "trained",
        "inner",
        "scored",
        "tumor",
        "slides",
        "AUROC",
        "AP",
        "bal. acc.",
        "NLL",
        "ECE",
        "epoch",
        "temp.",
        "seconds",
    ]
    known = [fold["scores"]["auroc"] for fold in facts.scores["out_of_fold"]["per_fold"] if fold["scores"]["auroc"] is not None]
    spread = f"AUROC by fold: {min(known):.3f} to {max(known):.3f}. " if len(known) > 1 else ""
    note = f"{spread}Counts are patches, and slides among those scored; temp. is the temperature fitted on inner slides."
    return Section(blocks=(Paragraph(note, "note"), Table(head, rows), *[Paragraph(reason, "note") for reason in reasons]))


def provenance_section(facts: Facts) -> Section:
    """Recipe, digests, versions, device, time, and the command that repeats the run."""
    info, run = facts.info, facts.run
    seconds = sum(made.get("seconds", 0) for made in facts.fold_facts.values())
    precision, processes = info.get("precision", {}), info.get("processes", 1)
    named = [
        ("Run", run.path),
        ("Command", shlex.join(["pcam-ssl", *info["argv"][1:]])),
        ("Dataset", f"{info['dataset']}, digest {info['dataset_digest']}"),
        ("Recipe digest", info["recipe_digest"]),
        (
            "Device",
            f"{info.get('device', 'not recorded')}, {processes} process{'es' if processes > 1 else ''}, {precision.get('name', '?')} ({precision.get('why', '?')})",
        ),
        ("Time", f"{seconds:,.0f} s for {len(facts.fold_facts)} folds, started {info['begun']}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in info["versions"].items())),
    ]
    recipe = [f"{key}: {value}" for key, value in facts.recipe.items()]
    return Section(
        blocks=(
            Preformatted(repeat_command(facts)),
            document.Facts(named),
            Paragraph(("Recipe keys that differ from the defaults: ", changed_keys(facts.recipe) or "nothing", "."), "note"),
            Details("The whole recipe", (Preformatted("\n".join(recipe)),)),
        )
    )


def repeat_command(facts: Facts) -> str:
    """The command that repeats the run into a new folder beside it."""
    path = facts.run.path
    if "blend" in facts.info:
        return blend_command(facts.info, f"{path}-again")
    same = ["--data", facts.info["dataset"], "--recipe", str(facts.run.paths.recipe), "--out"]
    if facts.info["command"] == ROUNDS:
        start = facts.info["round_0"]
        number = str(facts.info["control_of"]["round"] if "control_of" in facts.info else facts.info["round"])
        # A round needs the rounds before it, and the control those whose students it follows.
        return shlex.join(["pcam-ssl", ROUNDS, start, "--rounds", number, *same, f"{path.resolve().parent}-again"])
    return shlex.join(["pcam-ssl", facts.info["command"], *same, f"{path}-again"])


def changed_keys(recipe: dict) -> str:
    """`key=value` for every key that is not the default's, comma-separated."""
    defaults = flatten(Recipe().dump())
    return ", ".join(f"{key}={value}" for key, value in recipe.items() if key not in defaults or defaults[key] != value)


SHOWN = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "nll": "NLL (lower is better)", "ece": "ECE (lower is better)"}


def views_section(facts: Facts) -> Section:
    """Scores of one plain view, of the mean of all views, and the paired difference."""
    views = facts.scores.get("views")
    if views is None:
        return Section(absent=_reason(facts))
    every = facts.scores["out_of_fold"]["scores"]
    rows = [
        [label, *(with_interval(scores[name], scores is views["gain"]) for scores in (views["one_view"], every, views["gain"]))]
        for name, label in SHOWN.items()
    ]
    note = "One view: the patch as it is, calibrated by its own temperatures. Difference: paired, on the same resampled slides."
    head = ["score", "one view", f"mean of {views['count']}", "difference"]
    return Section(blocks=(Paragraph(gain_sentence(views)), Table(head, rows), Paragraph(note, "note")))


def gain_sentence(views: dict[str, Any]) -> str:
    """Whether the mean of all views changes the AUROC, judged by the paired interval."""
    gain, count = views["gain"]["auroc"], views["count"]
    if gain["low"] is None:
        return f"Whether the mean of {count} views helps is not known: {gain['reason']}."
    if gain["low"] > 0:
        return f"The mean of {count} views gains {gain['value']:+.3f} AUROC over one view."
    if gain["high"] < 0:
        return f"The mean of {count} views is worse than one view, by {gain['value']:+.3f} AUROC."
    return (
        f"The mean of {count} views has no measurable gain in AUROC ({gain['value']:+.3f}), at {count} times the cost of one view."
    )


def _reason(facts: Facts) -> str:
    if facts.info["command"] == "blend":
        return "a blend has no predictions of single views"
    if not facts.recipe.get("predict.d4", True) and not facts.recipe.get("predict.random_views", 0):
        return "one view was scored (predict.d4 is false), so there is no mean of views to compare it with"
    return "an older pcam-ssl made the run and stored no score of one view; train it again"


MEASURES = {"precision_at_1": "precision@1", "r_precision": "R-precision", "map_at_r": "MAP@R", "cmc_at_5": "CMC@5"}
KINDS = {"knn": "kNN", "blend": "blend of head and kNN", "graph": "label propagation", "spatial": "smoothed in space"}


def further_kinds(scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name in words: `out_of_fold` and `above_head` of the run's further predictions (kNN, blend, label propagation, smoothed in space), of those it has."""
    found = {**(scores.get("neighbours") or {}), **{kind: scores.get(kind) for kind in ("graph", "spatial")}}
    marked = {
        kind: f"{name}, transductive" if (found.get(kind) or {}).get("transductive") else name for kind, name in KINDS.items()
    }
    return {name: found[kind] for kind, name in marked.items() if found.get(kind)}


def retrieval_section(scores: dict[str, Any]) -> Section:
    """From scores.json: AUROC of kNN, blend, label propagation and smoothing with the paired difference to the run's own predictions, then retrieval
    in all slides and across them."""
    neighbours, further = scores.get("neighbours"), further_kinds(scores)
    if not neighbours and not further:
        return Section(absent="the run has no kNN scores; `pcam-ssl metric-train`, or neighbours.use=true, makes them")
    blocks: list[Paragraph | Table] = []
    if by_knn(scores):
        blocks.append(Paragraph(f"The scores of this page are those of kNN: {VOTES}.", "note"))
    elif neighbours:
        blocks.append(Paragraph(f"kNN: {VOTES}.", "note"))
    if graph := scores.get("graph"):
        blocks.append(Paragraph(f"Label propagation: {SPREADS}; {AS_NODES if graph.get('transductive') else AS_QUERIES}.", "note"))
    if scores.get("spatial"):
        blocks.append(Paragraph(f"Smoothed in space: {AROUND}.", "note"))
    if further:
        rows: list[list] = [["kNN" if by_knn(scores) else "head", with_interval(scores["out_of_fold"]["scores"]["auroc"]), "-"]]
        for name, entry in further.items():
            gain = with_interval(entry["above_head"]["auroc"], signed=True)
            rows.append([name, with_interval(entry["out_of_fold"]["scores"]["auroc"]), gain])
        blocks.append(Table(["AUROC out of fold", "score", f"difference to {difference_to(scores)}, paired"], rows))
    return Section(blocks=(*blocks, *(_retrieval(neighbours["retrieval"]) if neighbours else [])))


VOTES = "the fold's training patches vote, and the fold scores none of them"
SPREADS = "labels of the fold's training patches spread over a graph of nearest neighbours"
AS_QUERIES = "scored patches are not in it and ask the nearest patches that are"
AROUND = (
    "each logit is mixed with the mean of the up to eight patches around it on its slide, by a weight chosen on inner slides; it holds where"
    " whole slides are scored"
)
AS_NODES = (
    "scored patches are in it without their labels (graph.transductive), so its score says how well this very set is labelled, not what to"
    " expect of new slides"
)


def difference_to(scores: dict[str, Any]) -> str:
    """What makes the run's own predictions, within a sentence."""
    return "kNN" if by_knn(scores) else "the head"


def _retrieval(retrieval: dict[str, Any]) -> list[Paragraph | Table]:
    everywhere, across = retrieval["all_slides"], retrieval["across_slides"]
    rows = [
        [name, *(with_interval(scope[key]) if scope else "-" for scope in (everywhere, across))] for key, name in MEASURES.items()
    ]
    note = (
        f"{retrieval['queried']:,} queries, each searched among the other patches that its fold scored, in that fold's embedding."
    )
    if across is None:
        note += f" Not defined across slides: {retrieval['reason']}."
    else:
        note += " Quote the scores across slides: within a slide, similar stain alone finds the same class."
    return [Paragraph(note, "note"), Table(["retrieval", "all slides", "across slides"], rows)]
