"""What an operating point and a decision curve come to, in sentences; every chart's words. No torch."""

import shlex

import numpy as np

from pcam_ssl.evaluation.decision_curve import THRESHOLDS, DecisionCurve
from pcam_ssl.evaluation.operating_point import SENSITIVITY, SPECIFICITY, Target
from pcam_ssl.report.operating_facts import FoldThreshold, OperatingPoint
from pcam_ssl.runs.contents import Facts

FEW_INNER_SLIDES = 10


def percent(score: dict) -> tuple[str, str]:
    """'91.2%' and '85.0% to 95.5%', or '-'."""
    value = "-" if score["value"] is None else f"{score['value']:.1%}"
    return value, "-" if score["low"] is None else f"{score['low']:.1%} to {score['high']:.1%}"


def reached(point: OperatingPoint) -> str:
    """What was asked for, what the scored slides gave, and whether that is short of it."""
    measure, share = point.target.measure, point.target.share
    score = point.scores[measure]
    if score["value"] is None:
        return f"{measure.capitalize()} is not defined: the scored patches hold one class only."
    value, ends = percent(score)
    text = f"Asked for: {measure} of at least {100 * share:.6g}%. Reached on the scored slides: {value}"
    if score["low"] is None:
        return f"{text}, and how sure that is cannot be said: there is nothing to resample."
    text += f" ({ends})"
    if score["high"] < share:
        return f"{text}: measurably less than asked for."
    if score["value"] < share:
        return f"{text}: less than asked for, though the interval reaches it."
    return f"{text}."


def asked(point: OperatingPoint) -> str:
    """Where the thresholds come from, and what weakens them."""
    known = [found for found in point.thresholds if found.threshold is not None]
    text = "Each fold's threshold was chosen on its inner slides, which it neither trains on nor scores."
    if any(found.shared_slides for found in known):
        text = "Each fold's threshold was chosen on inner patches. Folds tear slides here, so patches of the same slides are scored: the point flatters."
    slides = [found.n_slides for found in known if found.n_slides]
    if slides and min(slides) < FEW_INNER_SLIDES:
        few = f"{min(slides)}" if min(slides) == max(slides) else f"{min(slides)} to {max(slides)}"
        text += f" Those are {few} slides a fold, few for a threshold: more with a larger cv.inner_share."
    if any(found.threshold == np.inf for found in known):
        text += " Where no prob was high enough, nothing is called tumor."
    if point.left_out:
        gone = [found for found in point.thresholds if found.threshold is None]
        numbers = ", ".join(str(found.fold) for found in gone)
        text += f" {point.left_out:,} patches of fold {numbers} are left out: {gone[0].reason}."
    return text


def by_slide(point: OperatingPoint) -> str:
    """How the misses lie over slides with tumor."""
    if not len(point.slides):
        return "Missed patches by slide are not shown: slides are not known."
    with_tumor = point.slides[point.slides.tumor > 0]
    if not len(with_tumor):
        return "No slide holds tumor, so none can be missed."
    missed = with_tumor.missed
    text = f"{(missed == 0).sum():,} of {len(with_tumor):,} slides with tumor have no missed patch; {missed.mean():.1f} are missed in the mean"
    return (
        f"{text}, at most {missed.iloc[0]:,} of {with_tumor.tumor.iloc[0]:,} (slide {missed.index[0]})."
        if missed.any()
        else f"{text}."
    )


def threshold_text(found: FoldThreshold) -> str:
    """A fold's threshold, or why there is none."""
    if found.threshold is None:
        return f"none: {found.reason}"
    return "none is high enough" if found.threshold == np.inf else f"{found.threshold:.4f}"


def how_to_ask(facts: Facts, target: Target) -> str:
    """The command for another point."""
    measure, share = (SPECIFICITY, "0.95") if target.measure == SENSITIVITY else (SENSITIVITY, "0.98")
    return shlex.join(["pcam-ssl", "report", str(facts.run.path), f"--{measure}", share])


def better_where(curve: DecisionCurve) -> str:
    """Between which thresholds the network is measurably worth more than treating all or none."""
    if curve.gain_low is None:
        return "Where acting on the network is worth more than treating all or none cannot be told: there is nothing to resample."
    better = curve.better
    if not better.any():
        return "At no threshold is acting on the network measurably worth more than treating all patches alike."
    edges = np.flatnonzero(np.diff(np.concatenate([[0], better.astype(int), [0]])))
    spans = [f"{THRESHOLDS[a]:.2f} to {THRESHOLDS[b - 1]:.2f}" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    where = (
        " and ".join(spans)
        if len(spans) <= 2
        else f"{better.sum()} of {len(better)} thresholds between {spans[0][:4]} and {spans[-1][-4:]}"
    )
    return f"Acting on the network is measurably worth more than treating all patches alike from prob {where}."
