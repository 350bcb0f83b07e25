"""`model-card.md` (Mitchell et al., Model Cards for Model Reporting, 2019): purpose, data, scores and limits of a run's networks."""

from pathlib import Path
from statistics import median
from typing import Any

from pcam_ssl.data.folds import REFIT
from pcam_ssl.models.foundation import foundation_model
from pcam_ssl.render.document import Block, Document, Items, Paragraph, Preformatted, Section, Strong, Table
from pcam_ssl.render.format import NAMES, interval, out_of_fold_words, split_words, three, transductive_sentence
from pcam_ssl.render.text import markdown
from pcam_ssl.report.scores import changed_keys, repeat_command
from pcam_ssl.report.verdict import Verdict, what_was_done
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import BLEND

FILE = "model-card.md"
WORST_SLIDES = 20
USE = (
    "Research on classifying small patches of stained tissue as tumor (class 1) or normal (class 0), on images like those it was trained on: "
    "same organ, stain, scanner, magnification, and patch size.",
    "Choosing which patches of a study to look at or to label next, by someone who knows the scores below.",
)
MISUSE = (
    "Diagnosis, triage, or any other decision on a patient. It is not a medical device and was never validated as one.",
    "Diagnosis of whole slides: it scores single patches.",
    "Other organs, stains, scanners, or magnifications: it was not tested on them.",
)


def model_card(facts: Facts, verdict: Verdict) -> str:
    """The whole card as markdown; the same run gives the same text."""
    done = [f"{key}: {value}" for key, value in what_was_done(facts)]
    versions = ", ".join(f"{name} {version}" for name, version in facts.info["versions"].items())
    sections = (
        Section("Intended use", [Items(USE)]),
        Section("Out-of-scope use", [Items(MISUSE)]),
        Section("Model details", [Items([*done, networks_text(facts), *_backbone(facts)])]),
        Section("Data", [Items(_data(facts))]),
        Section("Training", [Items(_training(facts))]),
        Section("Scores", _scores(facts, verdict)),
        Section("Scores by slide", _slides(facts.scores["out_of_fold"]["per_slide"])),
        Section("Limitations", [Items(limits(facts, verdict))]),
        Section("Reproduction", [Preformatted(repeat_command(facts)), Paragraph(f"With {versions}.")]),
    )
    warning = Paragraph((Strong("For research. Not for diagnosis."),))
    return markdown(Document(f"Model card: {facts.run.path.resolve().name}", sections, intro=[warning]))


def networks_text(facts: Facts) -> str:
    """Which networks the run holds."""
    if facts.info["command"] == BLEND:
        return f"Networks: none; the run is a blend ({facts.info['blend']['method']}) of {len(facts.info['blend']['members'])} runs"
    names = [f"fold-{k}" for k in facts.fold_facts] + [REFIT] * facts.run.unit_done(REFIT)
    return f"Networks: {len(names)} (model.safetensors in {', '.join(names)})" if names else "Networks: none in the run folder"


def _backbone(facts: Facts) -> list[str]:
    """Whose foundation model the networks hold, and its licence; empty for other backbones, and for a blend, which holds none."""
    model = foundation_model(str(facts.recipe.get("model.name")))
    if model is None or not facts.recipe.get("model.pretrained") or facts.info["command"] == BLEND:
        return []
    return [f"Backbone: {model.title} ({model.paper}), licence {model.licence}, {model.page}; the networks hold its weights"]


def _data(facts: Facts) -> list[str]:
    report = facts.scores["out_of_fold"]
    share = f"{report['n_positive'] / report['n']:.0%}" if report["n"] else "-"
    lines = [
        f"Dataset: {Path(facts.info['dataset']).name}, digest {facts.info['dataset_digest']}",
        f"Labelled patches scored: {report['n']:,}, {share} of them tumor",
        f"Slides: {report['n_slides']:,}" if report["n_slides"] else "Slides: unknown",
        f"Folds grouped by {facts.scores['grouping']} (cv.scheme {facts.scores['scheme']})",
    ]
    held = [f"{split} ({report['n']:,} patches)" for split, report in (facts.scores["held_out"] or {}).items()]
    kind = "Scored transductively" if transductive_sentence(facts.scores) else "Held out"
    return [*lines, f"{kind}: {', '.join(held) or 'no labelled split'}"]


def _training(facts: Facts) -> list[str]:
    seconds = sum(made.get("seconds", 0) for made in facts.fold_facts.values())
    lines = [
        f"Recipe digest: {facts.info['recipe_digest']}",
        f"Recipe keys that differ from the defaults: {changed_keys(facts.recipe) or 'nothing'}",
        f"Device: {facts.info.get('device', 'not recorded')}; {seconds:,.0f} s for {len(facts.fold_facts)} folds",
    ]
    return lines + [f"Pseudo-label rounds: {rounds['verdict']}" for rounds in facts.rounds.values()]


def _scores(facts: Facts, verdict: Verdict) -> list[Block]:
    scores = facts.scores
    reports = {out_of_fold_words(scores): scores["out_of_fold"]}
    if scores["floor"]:
        reports["colour baseline"] = scores["floor"]
    for split, report in (scores["held_out"] or {}).items():
        reports[split_words(split, report)] = report
    rows = [[label, *(interval(report["scores"][name]) for report in reports.values())] for name, label in NAMES.items()]
    note = f"Intervals: {scores['out_of_fold']['interval']}. Each patch was scored by the fold that was not trained on it; other splits by the mean of all folds."
    return [Paragraph(f"{verdict.badge}: {verdict.headline}"), Table(["score", *reports], rows), Paragraph(note)]


def _slides(slides: list[dict[str, Any]] | None) -> list[Block]:
    if not slides:
        return [Paragraph("Not known: the data has no slide ids.")]
    worst = sorted(slides, key=lambda slide: (slide["scores"]["accuracy"], slide["wsi"]))[:WORST_SLIDES]
    aurocs = [slide["scores"]["auroc"] for slide in slides if slide["scores"]["auroc"] is not None]
    accuracies = [slide["scores"]["accuracy"] for slide in slides]
    lines = [f"Accuracy at prob 0.5, {len(slides):,} slides: {_spread(accuracies)}."]
    if aurocs:
        lines.append(f"AUROC, the {len(aurocs):,} slides with both classes: {_spread(aurocs)}.")
    lines.append("All slides:" if len(worst) == len(slides) else f"The {len(worst)} least accurate; scores.json has all:")
    rows = [
        [
            slide["wsi"],
            f"{slide['n']:,}",
            f"{slide['n_positive']:,}",
            *(three(slide["scores"][key]) for key in ("auroc", "accuracy")),
        ]
        for slide in worst
    ]
    return [*map(Paragraph, lines), Table(["slide", "patches", "tumor", "AUROC", "accuracy"], rows)]


def _spread(values: list[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}, median {median(values):.3f}"


def limits(facts: Facts, verdict: Verdict) -> list[str]:
    """The warnings of the verdict, then folds, colour baseline, calibration, and what the scores do not cover."""
    found = [] if verdict.level == "good" else [verdict.headline]
    return [*found, *verdict.remarks, *_folds(facts), *_floor(facts), *_calibration(facts), *_not_covered(facts)]


def _folds(facts: Facts) -> list[str]:
    known = [fold["scores"]["auroc"] for fold in facts.scores["out_of_fold"]["per_fold"] if fold["scores"]["auroc"] is not None]
    if len(known) < 2:
        return ["There is one fold only, so the spread between folds is not known."]
    return [f"AUROC by fold ranges from {min(known):.3f} to {max(known):.3f}."]


def _floor(facts: Facts) -> list[str]:
    floor = facts.scores["floor"]
    if not floor:
        return []
    return [
        f"Colour alone reaches AUROC {three(floor['scores']['auroc']['value'])} on the same folds. How well the network does on another stain or scanner was not measured."
    ]


def _calibration(facts: Facts) -> list[str]:
    report = facts.scores["out_of_fold"]
    before, after = (report[when]["ece"]["value"] for when in ("scores_before_calibration", "scores"))
    lines = [
        f"Expected calibration error out of fold: {three(after)} ({three(before)} before calibration). This is an average; single slides can be calibrated worse."
    ]
    reasons = [
        f"fold {k}: {reason}" for k, made in facts.fold_facts.items() if (reason := made.get("calibration", {}).get("reason"))
    ]
    return [*lines, *([f"Not calibrated: {'; '.join(reasons)}."] if reasons else [])]


def _not_covered(facts: Facts) -> list[str]:
    lines = [
        "Out-of-fold scores are those of single networks, one for each fold. The mean of all folds is a different model; only held-out splits can score it."
    ]
    if facts.run.unit_done(REFIT):
        lines.append(
            "The network in refit/ was trained on all labelled slides, so no labelled slide is left to score it. The folds' scores estimate its performance."
        )
    undefined = [
        NAMES[name] for name, score in facts.scores["out_of_fold"]["scores"].items() if name in NAMES and score["value"] is None
    ]
    if undefined:
        lines.append(f"Not defined, because a class is absent: {', '.join(undefined)}.")
    lines.append("Intervals cover the sampling of slides, not the seed: training with another seed also changes the scores.")
    lines.append(
        "All slides come from this one dataset: other hospitals and scanners were not scored. Its labels were not verified; `pcam-ssl data audit` lists suspicious ones."
    )
    return lines
