"""The scores that scores.json holds, and the warnings about them."""

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.evaluation import metrics
from pcam_ssl.evaluation.bootstrap import intervals, within_folds
from pcam_ssl.evaluation.confidence import FEWEST, count_groups, group_codes
from pcam_ssl.render.format import transductive_sentence

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
