"""Where a run's scores end, as sentences for its model card: what was found wrong, and what was never asked. No torch."""

from pcam_ssl.render.format import NAMES
from pcam_ssl.render.markup import three
from pcam_ssl.report.verdict import Verdict
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import REFIT


def limits(facts: Facts, verdict: Verdict) -> list[str]:
    """What the verdict has against the scores, then folds, floor, calibration, and what the scores do not cover."""
    found = [] if verdict.level == "good" else [verdict.headline]
    return [*found, *verdict.remarks, *_folds(facts), *_floor(facts), *_calibration(facts), *_not_covered(facts)]


def _folds(facts: Facts) -> list[str]:
    known = [fold["scores"]["auroc"] for fold in facts.scores["out_of_fold"]["per_fold"] if fold["scores"]["auroc"] is not None]
    if len(known) < 2:
        return ["One fold only: how far the score moves from fold to fold is not known."]
    return [f"From fold to fold AUROC moves between {min(known):.3f} and {max(known):.3f}."]


def _floor(facts: Facts) -> list[str]:
    floor = facts.scores["floor"]
    if not floor:
        return []
    return [
        f"Colour alone reaches AUROC {three(floor['scores']['auroc']['value'])} on the same folds. How much of the score outlasts another stain or scanner was not measured."
    ]


def _calibration(facts: Facts) -> list[str]:
    report = facts.scores["out_of_fold"]
    before, after = (report[when]["ece"]["value"] for when in ("scores_before_calibration", "scores"))
    lines = [
        f"Expected calibration error out of fold: {three(after)} ({three(before)} before calibration): on average a prob is off by that much, on a single slide by more or less."
    ]
    reasons = [
        f"fold {k}: {reason}" for k, made in facts.fold_facts.items() if (reason := made.get("calibration", {}).get("reason"))
    ]
    return [*lines, *([f"Not calibrated: {'; '.join(reasons)}."] if reasons else [])]


def _not_covered(facts: Facts) -> list[str]:
    lines = [
        "The scores are those of each fold's own network. The mean of all folds is another model, scored on held-out splits alone, where there are any."
    ]
    if facts.run.unit_done(REFIT):
        lines.append(
            "The network in refit/ learned from all labelled slides, so none is left to score it: the folds' scores stand in for it."
        )
    undefined = [
        NAMES[name] for name, score in facts.scores["out_of_fold"]["scores"].items() if name in NAMES and score["value"] is None
    ]
    if undefined:
        lines.append(f"Not defined here, because a class is absent: {', '.join(undefined)}.")
    lines.append("Intervals hold the choice of slides, not that of seeds: training anew moves scores too.")
    lines.append(
        "All slides come from this one dataset: other hospitals and scanners were not scored. Its labels are taken as they are; `pcam-ssl data audit` lists those that look wrong."
    )
    return lines
