"""The scores that scores.json holds, the same as a Python object, and the warnings about them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.errors import UnknownName, UserError, nearest
from pcam_ssl.evaluation import metrics
from pcam_ssl.evaluation.bootstrap import intervals, within_folds
from pcam_ssl.evaluation.confidence import FEWEST, count_groups, group_codes
from pcam_ssl.render.format import interval, score_document, score_table, transductive_sentence
from pcam_ssl.tables import calibrated_logits, predictions

# With fewer slides of the rarer class a score depends on a handful of patients.
FEW_GROUPS = 10


def score_report(
    predictions: pd.DataFrame, groups, resamples: int = 2000, seed: int = 0, uncalibrated_logits=None, unit: str = "slide"
) -> dict:
    """Scores of Predictions with one row per id: over all patches with intervals, per fold, and per slide.

    Intervals come from resampled `groups` [N], one name per row; `unit` says what a group is (slide, stain cluster). With `groups`
    None patches are resampled. `uncalibrated_logits` [N] default to the column `logit`. Rows without label are dropped and counted.
    """
    labelled = predictions.label.notna().to_numpy()
    logits = predictions.logit if uncalibrated_logits is None else uncalibrated_logits
    logits = np.asarray(logits, dtype=np.float64)[labelled]
    if groups is not None:
        groups = np.asarray(groups, dtype=object)[labelled]
    frame = predictions[labelled].assign(label=lambda kept: kept.label.astype("int64"))
    labels, probs = frame.label.to_numpy(), frame.prob.to_numpy()
    before = expit(logits)
    scores = intervals(labels, probs, groups, resamples, seed)
    same = np.array_equal(before, probs)
    return {
        **_counts(frame),
        "n_unlabelled": int((~labelled).sum()),
        "interval": interval_text(groups, len(frame), resamples, unit, labels),
        "scores": scores,
        "within_folds": {"auroc": within_folds(labels, probs, frame.fold, groups, resamples, seed)},
        "scores_before_calibration": scores if same else intervals(labels, before, groups, resamples, seed),
        "per_fold": [_fold_scores(fold, rows) for fold, rows in frame.groupby("fold")],
        "per_slide": [_slide_scores(slide, rows) for slide, rows in frame.groupby("wsi")],
    }


def interval_text(groups, n: int, resamples: int, unit: str = "slide", labels=None) -> str:
    """How the intervals were computed, in words, for `groups` [N] or None and `n` patches. `labels` [N] add a note on few slides of a class."""
    if n < 2:
        return f"none: {n} labelled patches"
    how = f"Student's t on {resamples} resamples"
    if groups is None:
        return f"95 %, {how} of patches; no slide ids, so too narrow where patches share a slide"
    counted = count_groups(group_codes(groups, n), labels)
    if counted.n < FEWEST:
        return f"none: one {unit} only, nothing to resample"
    if not counted.enough:
        return f"none: of {counted.n} {unit}s {counted.rarer} holds the rarer class, so no spread can be seen"
    few = f"; only {counted.rarer} hold the rarer class, and all rests on them" if counted.rarer < FEW_GROUPS else ""
    return f"95 %, {how} of {counted.n} {unit}s{few}"


def _counts(frame: pd.DataFrame) -> dict:
    """Counts of patches and slides; the slide counts are None where no row has a slide."""
    slides = {"n_slides": frame, "n_slides_tumor": frame[frame.label == 1], "n_slides_normal": frame[frame.label == 0]}
    known = frame.wsi.notna().any()
    counts = {name: int(rows.wsi.nunique()) if known else None for name, rows in slides.items()}
    return {"n": len(frame), "n_positive": int(frame.label.sum()), **counts}


def _fold_scores(fold: int, rows: pd.DataFrame) -> dict:
    return {"fold": int(fold), **_counts(rows), "scores": metrics.point_scores(rows.label.to_numpy(), rows.prob.to_numpy())}


def _slide_scores(slide: str, rows: pd.DataFrame) -> dict:
    labels, probs = rows.label.to_numpy(), rows.prob.to_numpy()
    scores = {score.__name__: score(labels, probs) for score in (metrics.auroc, metrics.accuracy, metrics.nll, metrics.brier)}
    scores["mean_prob"] = float(probs.mean())
    return {"wsi": slide, "n": len(rows), "n_positive": int(labels.sum()), "scores": scores}


def score_warnings(scores: dict) -> list[str]:
    """Reasons why the scores may be too good. They are shown wherever the scores are."""
    lines = list(scores["notes"])
    if scores["selected_on_fold"]:
        lines.append(
            "selected_on_fold: each fold's epoch was chosen on the patches it is scored on, so scores are too good; report train.choose=inner"
        )
    if (sentence := transductive_sentence(scores)) is not None:
        lines.append(sentence)
    return lines


@dataclass(frozen=True, repr=False)
class Score:
    """A score with its 95 % interval. `value` is None where a class is absent; `low` and `high` where there is no interval, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    resampled: str = ""
    """What was resampled for the interval, such as "slides"."""
    reason: str | None = None

    def __float__(self) -> float:
        return float("nan") if self.value is None else self.value

    def __repr__(self) -> str:
        """As "0.957 (0.941 to 0.969), slides resampled"."""
        text = interval({"value": self.value, "low": self.low, "high": self.high})
        if self.low is None:
            return f"{text} (no interval: {self.reason})" if self.reason else text
        return f"{text}, {self.resampled} resampled" if self.resampled else text


class Scores(Mapping[str, Score]):
    """A score report to hold: `scores["auroc"]` is a Score.

    The names: auroc, average_precision, accuracy, balanced_accuracy, f1, nll, brier, ece, sensitivity_at_specificity_90 (95, 98),
    specificity_at_sensitivity_95. `report` is all that was computed.
    """

    def __init__(self, report: dict[str, Any], title: str = "Scores"):
        self.report = report
        self.title = title

    def __getitem__(self, name: str) -> Score:
        found = self.report["scores"]
        if name not in found:
            raise UnknownName(f"scores: there is no {name!r}; there are {', '.join(found)}.{nearest(str(name), found)}")
        score = found[name]
        return Score(score["value"], score["low"], score["high"], self.resampled, score.get("reason"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.report["scores"])

    def __len__(self) -> int:
        return len(self.report["scores"])

    @property
    def interval(self) -> str:
        """How the intervals were made, or why there are none."""
        return self.report["interval"]

    @property
    def resampled(self) -> str:
        """What the intervals resample: slides, stain clusters, patches; "" where there are none."""
        found = re.search(r"resamples of (?:\d+ )?([a-z ]+)", self.interval)
        return found[1].strip() if found else ""

    @property
    def per_fold(self) -> pd.DataFrame:
        """A row a fold: fold, counts, and a column a score."""
        return _rows(self.report["per_fold"])

    @property
    def per_slide(self) -> pd.DataFrame:
        """A row a slide: wsi, counts, and a column a score; empty where slides are unknown."""
        return _rows(self.report["per_slide"])

    def __repr__(self) -> str:
        return score_table(self.report, self.title)

    def _repr_html_(self) -> str:
        from pcam_ssl.render.html import fragment

        return fragment(score_document(self.report, self.title))


class RunScores(Scores):
    """The scores of a finished run: its own are those out of fold; `file` is all that scores.json says."""

    def __init__(self, file: dict[str, Any]):
        self.file = file
        if file["out_of_fold"] is not None:
            super().__init__(file["out_of_fold"], "Out of fold")

    def __getattr__(self, name: str) -> Any:
        # Only reached for what is not there: the report of a run whose out-of-fold scores are withheld.
        if name in ("report", "title"):
            raise UserError(
                f"scores: the out-of-fold scores are withheld ({self.file.get('withheld')}); `held_out` and `file` hold the others"
            )
        raise AttributeError(name)

    @property
    def held_out(self) -> dict[str, Scores]:
        """Scores by split of patches that no fold was trained on, of the mean over folds; empty where there are none."""
        return {split: Scores(report, f"Held out: {split}") for split, report in (self.file["held_out"] or {}).items()}

    @property
    def colour_baseline(self) -> Scores | None:
        """Scores of boosted trees on colour alone, same folds; None where they were not computed."""
        return Scores(self.file["floor"], "Colour baseline") if self.file["floor"] else None

    @property
    def warnings(self) -> list[str]:
        """Why the scores may flatter."""
        return score_warnings(self.file)


def _rows(entries: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(
        [{**{key: value for key, value in entry.items() if key != "scores"}, **entry["scores"]} for entry in entries]
    )


def scores_of(labels, probs, slides=None, *, resamples: int = 2000, seed: int = 0) -> Scores:
    """Scores of anyone's predictions: `labels` [N] 0 or 1 (None where unknown), `probs` [N] of class 1, `slides` [N] or None.

    Raises UserError where the lengths differ, a label is neither 0 nor 1, or a prob is not in 0 to 1.
    """
    labels, probs = pd.array(_column(labels, "labels"), dtype=object), _column(probs, "probs")
    if len(labels) != len(probs) or (slides is not None and len(slides) != len(labels)):
        n_slides = "" if slides is None else f", {len(slides):,} slides"
        raise UserError(f"scores: {len(labels):,} labels, {len(probs):,} probs{n_slides}; give one of each for every patch")
    known = ~pd.isna(labels)
    wrong = next((label for label in labels[known] if label not in (0, 1)), None)
    if wrong is not None:
        raise UserError(f"labels: {wrong!r} is no label; give 1 for tumor, 0 for normal, None where it is unknown")
    try:
        probs = np.asarray(probs, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("probs: are no numbers; give the probability of tumor of every patch") from None
    outside = ~((probs >= 0) & (probs <= 1))
    if outside.any():
        raise UserError(
            f"probs: {outside.sum():,} are not between 0 and 1, first {probs[outside][0]:g}; give probabilities of tumor"
        )
    if not known.any():
        raise UserError("labels: none is known, so there is nothing to score; give labels")
    slides = [None] * len(labels) if slides is None else list(slides)
    frame = predictions(
        np.arange(len(labels)).astype(str),
        [int(x) if k else None for x, k in zip(labels, known, strict=True)],
        slides,
        0,
        calibrated_logits(probs),
        probs=probs,
    )
    groups = frame.wsi.to_numpy() if frame.wsi[known].notna().all() else None
    # Logits of the probs themselves give the probs back, so nothing is scored twice as "before calibration".
    return Scores(score_report(frame, groups, resamples, seed))


def _column(values, name: str):
    values = np.asarray(values, dtype=object)
    if values.ndim != 1:
        raise UserError(f"{name}: have shape {list(values.shape)}; give a list of one value a patch")
    return values
