"""A run at an operating point: each fold's threshold is chosen on its inner slides and applied to the patches that it scores. No torch."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.operating_point import Target, choose_threshold, outcome_scores, outcomes
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import BLEND
from pcam_ssl.tables import read_predictions

INNER = "inner.parquet"


@dataclass(frozen=True)
class FoldThreshold:
    """What a fold's inner slides gave: a threshold of calibrated prob, or the reason why there is none."""

    fold: int
    threshold: float | None
    n: int = 0
    n_positive: int = 0
    n_slides: int | None = None
    reason: str | None = None
    shared_slides: int = 0
    """Inner slides of which the fold scores patches too: none but where folds tear slides."""


@dataclass(frozen=True)
class OperatingPoint:
    """The scored patches of all folds that have a threshold, called by it."""

    target: Target
    thresholds: tuple[FoldThreshold, ...]
    rows: pd.DataFrame
    """`label`, `wsi`, `fold`, `prob`, `called`, one row a scored patch."""
    left_out: int
    """Scored patches of folds without a threshold."""
    groups: np.ndarray | None
    """What intervals resample, for each row."""
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
        """All of it in JSON values; a threshold that no prob reaches is null, with its reason."""
        return {
            "target": {"measure": self.target.measure, "share": self.target.share},
            "chosen_on": "inner slides of each fold",
            "thresholds": [_plain(found) for found in self.thresholds],
            "confusion": dict(zip(("tp", "fn", "fp", "tn"), self.confusion, strict=True)),
            "left_out": self.left_out,
            "scores": self.scores,
            "per_slide": self.slides.reset_index().to_dict("records"),
        }


def _plain(found: FoldThreshold) -> dict[str, Any]:
    if found.threshold == np.inf:
        return {**found.__dict__, "threshold": None, "reason": "no inner prob is high enough: nothing is called tumor"}
    return dict(found.__dict__)


def operating_point(facts: Facts, target: Target) -> OperatingPoint | str:
    """The run at the target, or why there is none."""
    if facts.oof is None:
        return "oof.parquet is not in the run folder"
    if facts.info["command"] == BLEND and not any(facts.run.path.glob(f"fold-*/{INNER}")):
        return (
            "this blend keeps no inner slides, so no threshold can be chosen apart from the patches it scores; ask it of its members"
            " (a blend by mean or logit-mean keeps them, where its members keep the same)"
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
        return FoldThreshold(
            k, None, reason=f"folds keep no {INNER} in this run (an older pcam-ssl made it, or files were removed)"
        )
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
