"""Sections of a report: the operating point and the decision curve. Each fold's threshold is chosen on its inner slides."""

import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.operating_point import (
    SENSITIVITY,
    SPECIFICITY,
    THRESHOLDS,
    DecisionCurve,
    Target,
    choose_threshold,
    decision_curve,
    outcome_scores,
    outcomes,
)
from pcam_ssl.render.charts import Axis, Chart, Mark, dot_chart
from pcam_ssl.render.document import Block, Cell, Code, Details, Legend, Paragraph, Section, Table, absent
from pcam_ssl.render.format import three
from pcam_ssl.report.figures import NO_OOF, ONE_CLASS
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import BLEND
from pcam_ssl.tables import read_predictions

CHART_SLIDES, TABLE_SLIDES = 16, 1000
SHOWN = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def operating_section(facts: Facts, point: "OperatingPoint | str", target: Target) -> Section:
    """Confusion matrix, sensitivity and specificity reached, and missed patches by slide, at thresholds chosen on inner slides."""
    title = f"Operating point: {target.text}"
    if isinstance(point, str):
        return absent(title, point)
    return Section(
        title,
        (
            Paragraph(reached(point)),
            Paragraph(asked(point), "note"),
            _confusion(point),
            _scores(point),
            *_slides(point),
            Details("Thresholds by fold", (_thresholds(point),)),
            Paragraph(("For another operating point: ", Code(how_to_ask(facts, target))), "note"),
        ),
    )


@dataclass(frozen=True)
class FoldThreshold:
    """The threshold of calibrated prob chosen on a fold's inner slides, or the reason why there is none."""

    fold: int
    threshold: float | None
    n: int = 0
    n_positive: int = 0
    n_slides: int | None = None
    reason: str | None = None
    shared_slides: int = 0
    """Inner slides of which the fold also scores patches: above 0 only where slides are split across folds."""


@dataclass(frozen=True)
class OperatingPoint:
    """The scored patches of all folds that have a threshold, and their class at that threshold."""

    target: Target
    thresholds: tuple[FoldThreshold, ...]
    rows: pd.DataFrame
    """`label`, `wsi`, `fold`, `prob`, `called`, one row a scored patch."""
    left_out: int
    """Scored patches of folds without a threshold."""
    groups: np.ndarray | None
    """The group of each row, by which intervals resample."""
    seed: int

    @cached_property
    def cells(self) -> np.ndarray:
        """Which of `OUTCOMES` each row is, int [N]."""
        return outcomes(self.rows.label, self.rows.called)

    @cached_property
    def confusion(self) -> list[int]:
        """Counts of the four `OUTCOMES`."""
        return np.bincount(self.cells, minlength=4).tolist()

    @cached_property
    def scores(self) -> dict[str, dict]:
        """Sensitivity, specificity, precision, false positives per 1,000 patches, with intervals."""
        return outcome_scores(self.cells, self.groups, seed=self.seed)

    @cached_property
    def slides(self) -> pd.DataFrame:
        """`patches`, `tumor`, `missed`, `alarms` of each slide (index `wsi`), most missed first; empty where slides are not known."""
        tables = pd.DataFrame({"tumor": self.rows.label == 1, "missed": self.cells == 1, "alarms": self.cells == 2})
        counts = tables.assign(patches=1, wsi=self.rows.wsi.array).groupby("wsi")[["patches", "tumor", "missed", "alarms"]].sum()
        return counts.sort_values(["missed", "alarms"], ascending=False, kind="stable")

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; a threshold that no prob reaches is null, with its reason."""
        return {
            "target": {"measure": self.target.measure, "share": self.target.share},
            "chosen_on": "inner slides of each fold",
            "thresholds": [_plain(found) for found in self.thresholds],
            "confusion": dict(zip(("tp", "fn", "fp", "tn"), self.confusion, strict=True)),
            "left_out": self.left_out,
            "scores": self.scores,
            "per_slide": self.slides.reset_index().to_dict("records"),
        }


def _confusion(point: OperatingPoint) -> Table:
    hit, missed, alarm, right = (f"{count:,}" for count in point.confusion)
    rows = [["tumor", hit, Cell(missed, strong=True)], ["normal", Cell(alarm, strong=True), right]]
    return Table(["label, in patches", "called tumor", "called normal"], rows, "Confusion matrix, all folds")


def _scores(point: OperatingPoint) -> Table:
    named = {"sensitivity": "sensitivity", "specificity": "specificity", "precision": "precision"}
    rows = [[label, *percent(point.scores[name])] for name, label in named.items()]
    alarms = point.scores["false_positives_per_1000"]
    ends = "-" if alarms["low"] is None else f"{alarms['low']:.1f} to {alarms['high']:.1f}"
    rows.append(["false positives per 1,000 patches", "-" if alarms["value"] is None else f"{alarms['value']:.1f}", ends])
    shown = [[label, Cell(value, below="" if ends == "-" else ends)] for label, value, ends in rows]
    return Table(["score", "value, 95 % interval"], shown)


def _slides(point: OperatingPoint) -> list[Block | None]:
    with_tumor = point.slides[point.slides.tumor > 0]
    summary = Paragraph(by_slide(point), "note")
    if not len(with_tumor):
        return [summary]
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
        dot_chart(rows, axis, f"False negatives of {len(rows)} slides, most first; numbers below")
        if with_tumor.missed.any()
        else None
    )
    return [summary, chart, Details(f"Numbers by slide{more}", (Table(head, listed),))]


def _thresholds(point: OperatingPoint) -> Table:
    rows = [
        [found.fold, threshold_text(found), f"{found.n:,}", f"{found.n_positive:,}", found.n_slides or "-"]
        for found in point.thresholds
    ]
    return Table(["fold", "called tumor from prob", "inner patches", "tumor", "slides"], rows)


def decision_section(facts: Facts) -> Section:
    """Net benefit by threshold of prob: network, treat all, treat none."""
    if facts.oof is None:
        return Section(absent=NO_OOF)
    rows = facts.labelled
    labels = rows.label.to_numpy(np.int64)
    if not len(labels) or labels.min() == labels.max():
        return Section(absent=ONE_CLASS)
    curve = decision_curve(labels, rows.prob.to_numpy(), facts.groups, seed=facts.recipe.get("seed", 0))
    note = (
        "Decision curve (Vickers and Elkin 2006). At threshold p, one missed tumor patch counts as much as (1 - p) / p false alarms. "
        "Net benefit: true positives minus p / (1 - p) times the false positives, per patch. The band is a 95 % interval at each threshold."
    )
    numbers = [[f"{p:.2f}", *_numbers(curve, round(100 * p) - 1)] for p in SHOWN]
    entries = [("line", "c1", "network"), ("line", "c2", "treat all"), ("dashed", "c0", "treat none")]
    return Section(
        blocks=(
            Paragraph(better_where(curve)),
            Legend(entries),
            _decision_chart(curve, better_where(curve)).block(),
            Paragraph(note, "note"),
            Details("Numbers", (Table(["threshold", "network", "95 % interval", "treat all"], numbers),)),
        )
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


INNER = "inner.parquet"


def _plain(found: FoldThreshold) -> dict[str, Any]:
    if found.threshold == np.inf:
        return {**found.__dict__, "threshold": None, "reason": "no inner prob is high enough: nothing is called tumor"}
    return dict(found.__dict__)


def operating_point(facts: Facts, target: Target) -> OperatingPoint | str:
    """The operating point of the run at the target, or the reason why there is none."""
    if facts.oof is None:
        return "oof.parquet is not in the run folder"
    if facts.info["command"] == BLEND and not any(facts.run.path.glob(f"fold-*/{INNER}")):
        return (
            "this blend has no predictions on inner slides, so a threshold could only be chosen on the scored patches; report its members"
            " instead (a blend by mean or logit-mean has them, where its members have the same inner slides)"
        )
    rows = facts.labelled
    found = tuple(_fold_threshold(facts, int(k), rows[rows.fold == k], target) for k in sorted(rows.fold.unique()))
    known = {entry.fold: entry.threshold for entry in found if entry.threshold is not None}
    if not known:
        return "; ".join(dict.fromkeys(entry.reason for entry in found if entry.reason)) or "no patch is scored"
    kept = rows.fold.isin(list(known)).to_numpy()
    groups = None if facts.groups is None else np.asarray(facts.groups, dtype=object)[kept]
    scored = rows.loc[kept, ["label", "wsi", "fold", "prob"]].assign(label=lambda table: table.label.astype("int64"))
    scored["called"] = scored.prob.to_numpy() >= scored.fold.map(known).to_numpy(dtype=np.float64)
    return OperatingPoint(target, found, scored, int((~kept).sum()), groups, facts.recipe.get("seed", 0))


def _fold_threshold(facts: Facts, k: int, scored: pd.DataFrame, target: Target) -> FoldThreshold:
    path = facts.run.fold(k) / INNER
    if not path.exists():
        return FoldThreshold(k, None, reason=f"the folds have no {INNER} (an older pcam-ssl made the run, or files were removed)")
    inner = read_predictions(path)
    inner = inner[inner.label.notna()]
    labels, n_slides = inner.label.to_numpy(np.int64), inner.wsi.nunique() or None
    counts = (len(labels), int(labels.sum()), n_slides)
    if inner.id.isin(scored.id).any():
        return FoldThreshold(
            k, None, *counts, "inner slides hold patches that the fold scores, so no threshold may be chosen on them"
        )
    if not 0 < counts[1] < len(labels):
        return FoldThreshold(k, None, *counts, "inner slides hold one class only, so no threshold can be chosen on them")
    shared = len(set(inner.wsi.dropna()) & set(scored.wsi.dropna()))
    return FoldThreshold(k, choose_threshold(labels, inner.prob.to_numpy(), target), *counts, shared_slides=shared)


FEW_INNER_SLIDES = 10


def percent(score: dict) -> tuple[str, str]:
    """'91.2%' and '85.0% to 95.5%', or '-'."""
    value = "-" if score["value"] is None else f"{score['value']:.1%}"
    return value, "-" if score["low"] is None else f"{score['low']:.1%} to {score['high']:.1%}"


def reached(point: OperatingPoint) -> str:
    """The target, the score reached on the scored slides, and whether it is below the target."""
    measure, share = point.target.measure, point.target.share
    score = point.scores[measure]
    if score["value"] is None:
        return f"{measure.capitalize()} is not defined: the scored patches hold one class only."
    value, ends = percent(score)
    text = f"Target: {measure} of at least {100 * share:.6g}%. Reached on the scored slides: {value}"
    if score["low"] is None:
        return f"{text}, without an interval: there is nothing to resample."
    text += f" ({ends})"
    if score["high"] < share:
        return f"{text}: measurably below the target."
    if score["value"] < share:
        return f"{text}: below the target, but the interval includes it."
    return f"{text}."


def asked(point: OperatingPoint) -> str:
    """How the thresholds were chosen, and their weaknesses."""
    known = [found for found in point.thresholds if found.threshold is not None]
    text = "Each fold's threshold was chosen on its inner slides, which it neither trains on nor scores."
    if any(found.shared_slides for found in known):
        text = "Each fold's threshold was chosen on inner patches. Slides are split across folds, so patches of the same slides are scored: these scores are too good."
    slides = [found.n_slides for found in known if found.n_slides]
    if slides and min(slides) < FEW_INNER_SLIDES:
        few = f"{min(slides)}" if min(slides) == max(slides) else f"{min(slides)} to {max(slides)}"
        text += f" These are only {few} slides per fold; a larger cv.inner_share gives more where folds do not cross-fit."
    if any(found.threshold == np.inf for found in known):
        text += " Where no prob was high enough, nothing is called tumor."
    if point.left_out:
        gone = [found for found in point.thresholds if found.threshold is None]
        numbers = ", ".join(str(found.fold) for found in gone)
        text += f" {point.left_out:,} patches of fold {numbers} are left out: {gone[0].reason}."
    return text


def by_slide(point: OperatingPoint) -> str:
    """How missed patches are distributed over slides with tumor."""
    if not len(point.slides):
        return "Missed patches by slide are not shown: slides are not known."
    with_tumor = point.slides[point.slides.tumor > 0]
    if not len(with_tumor):
        return "No slide holds tumor, so none can be missed."
    missed = with_tumor.missed
    text = f"{(missed == 0).sum():,} of {len(with_tumor):,} slides with tumor have no missed patch; the mean is {missed.mean():.1f} missed patches per slide"
    return (
        f"{text}, the maximum {missed.iloc[0]:,} of {with_tumor.tumor.iloc[0]:,} (slide {missed.index[0]})."
        if missed.any()
        else f"{text}."
    )


def threshold_text(found: FoldThreshold) -> str:
    """A fold's threshold, or why there is none."""
    if found.threshold is None:
        return f"none: {found.reason}"
    return "none is high enough" if found.threshold == np.inf else f"{found.threshold:.4f}"


def how_to_ask(facts: Facts, target: Target) -> str:
    """The command for another operating point."""
    measure, share = (SPECIFICITY, "0.95") if target.measure == SENSITIVITY else (SENSITIVITY, "0.98")
    return shlex.join(["pcam-ssl", "report", str(facts.run.path), f"--{measure}", share])


def better_where(curve: DecisionCurve) -> str:
    """The thresholds at which the net benefit of the network is measurably above treating all and treating none."""
    if curve.gain_low is None:
        return "Whether the network has more net benefit than treating all or treating none is not known: there is nothing to resample."
    better = curve.better
    if not better.any():
        return "At no threshold does the network have measurably more net benefit than treating all or treating none."
    edges = np.flatnonzero(np.diff(np.concatenate([[0], better.astype(int), [0]])))
    spans = [f"{THRESHOLDS[a]:.2f} to {THRESHOLDS[b - 1]:.2f}" for a, b in zip(edges[::2], edges[1::2], strict=True)]
    where = (
        " and ".join(spans)
        if len(spans) <= 2
        else f"{better.sum()} of {len(better)} thresholds between {spans[0][:4]} and {spans[-1][-4:]}"
    )
    return f"The network has measurably more net benefit than treating all or treating none from prob {where}."
