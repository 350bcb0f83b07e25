"""Slides torn by the folds of a run, as findings. No torch."""

import pandas as pd

from pcam_ssl.audit.findings import Finding
from pcam_ssl.data.folds import check_groups
from pcam_ssl.errors import LeakError

NAMED = 3
MOVE = "train again with cv.scheme=grouped; scores of this run are too good"


def fold_findings(frame: pd.DataFrame, source: str) -> list[Finding]:
    """Slides in two folds, or in a fold's training and inner part; `frame` is that of `Folds`, `source` names it.

    What the folds were grouped by is not trusted: the slides themselves are counted. Where they are unknown, groups are checked.
    """
    findings = []
    n_folds = frame.groupby("wsi")["fold"].nunique()
    torn = n_folds.index[n_folds > 1]
    if len(torn):
        names = tuple(f"{slide} ({n_folds[slide]} folds)" for slide in torn[:NAMED])
        what = f"{len(torn):,} of {len(n_folds):,} slides have patches in more than one fold"
        findings.append(Finding("leak", "slides in folds", what, len(torn), names, MOVE))
    shared = _slides_shared_with_inner(frame)
    if shared:
        names = tuple(f"{slide} (fold {', '.join(map(str, folds))})" for slide, folds in list(shared.items())[:NAMED])
        what = f"{len(shared):,} slides are in the training part and in the inner part of one fold"
        findings.append(Finding("leak", "slides in folds", what, len(shared), names, MOVE))
    if findings:
        return findings
    try:
        check_groups(frame, source)
    except LeakError as error:
        return [Finding("leak", "slides in folds", str(error), 1, (), MOVE)]
    if len(n_folds):
        return [Finding("ok", "slides in folds", f"{len(n_folds):,} slides, each whole in one fold, and inside it on one side")]
    what = f"slides are unknown, so only the {frame['group'].nunique():,} proxy groups were checked: each is whole in one fold"
    return [Finding("note", "slides in folds", what, 0, (), "import again with --wsi CSV to be sure")]


def _slides_shared_with_inner(frame: pd.DataFrame) -> dict[str, list[int]]:
    """The folds in which a slide is both in training and in the inner part, by slide."""
    shared: dict[str, list[int]] = {}
    for name in [name for name in frame.columns if name.startswith("inner_")]:
        fold = int(name.removeprefix("inner_"))
        both = frame[frame["fold"] != fold].groupby("wsi")[name].nunique()
        for slide in both.index[both > 1]:
            shared.setdefault(slide, []).append(fold)
    return shared
