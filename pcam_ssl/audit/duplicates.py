"""Exact duplicates as findings: across splits, across folds, across labels, and within. No torch."""

import numpy as np
import pandas as pd

from pcam_ssl.audit.findings import Finding, counted
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.duplicates import conflicting_duplicates, duplicate_keys, is_flat

NAMED = 3
EXACT_MOVES = {
    "split": "drop the copies from one split and import again; until then scores of that split are too good",
    "fold": "drop all but one copy and import again, or train with cv.scheme=grouped on slide ids that hold the copies together",
}


def flat_finding(dataset: Dataset) -> list[Finding]:
    """Patches of one flat colour, which count as no duplicates."""
    flat = dataset.patches[is_flat(dataset.patches)]
    if flat.empty:
        return []
    rows = (tuple(map(int, flat["row"])),)
    what = f"{len(flat):,} patches are of one flat colour; they are not counted as duplicates"
    return [Finding("note", "flat patches", what, len(flat), tuple(flat["id"].head(NAMED)), "drop them: they show no tissue", rows)]


def exact_findings(dataset: Dataset, folds: pd.Series | None = None) -> list[Finding]:
    """Patches with the same pixels, mirrored or turned or not. `folds` is the fold of each row that has one, given a run."""
    patches = dataset.patches.set_index("row", drop=False)
    keys = duplicate_keys(dataset)
    findings = _conflicts(conflicting_duplicates(patches, keys))
    solid = patches[~is_flat(patches).to_numpy()]
    key = keys.loc[solid.index]
    copies = solid.assign(key=key)[key.duplicated(keep=False)]
    if copies.empty:
        text = f"no two of {len(solid):,} patches have the same pixels, mirrored and turned ones included"
        return [*findings, Finding("ok", "exact duplicates", text)]
    place = {"split": copies["split"]}
    if folds is not None:
        place["fold"] = folds.reindex(copies.index)
    within = np.ones(len(copies), dtype=bool)
    for name, values in place.items():
        across = (values.groupby(copies["key"]).transform("nunique") > 1).to_numpy()
        if across.any():
            where = ", ".join(sorted(values[across].dropna().astype(str).unique()))
            what = f"are in more than one {name} ({where})"
            findings.append(_groups("leak", copies[across], what, EXACT_MOVES[name]))
        within &= ~across
    if within.any():
        what = "are within one split" if folds is None else "are within one split and fold"
        findings.append(
            _groups("note", copies[within], what, "they count more than once in training and scores; drop all but one of each")
        )
    return findings


def _groups(level: str, copies: pd.DataFrame, where: str, move: str) -> Finding:
    groups = [group for _, group in copies.groupby("key", sort=False)]
    what = f"{counted(len(groups), 'group')} of exact duplicates ({len(copies):,} patches) {where}"
    examples = tuple(" = ".join(group["id"].head(3)) for group in groups[:NAMED])
    return Finding(level, "exact duplicates", what, len(groups), examples, move, _rows(groups))


def _conflicts(conflicting: pd.DataFrame) -> list[Finding]:
    if conflicting.empty:
        return []
    groups = [group for _, group in conflicting.groupby("key", sort=False)]
    what = f"{counted(len(groups), 'group')} of exact duplicates ({len(conflicting):,} patches) have both labels"
    examples = tuple(" / ".join(f"{row.id} ({row.label})" for row in group.head(3).itertuples()) for group in groups[:NAMED])
    move = "find out which label is right and import again; `baseline` refuses them unless data.allow_conflicts=true"
    return [Finding("problem", "conflicting labels", what, len(groups), examples, move, _rows(groups))]


def _rows(groups: list[pd.DataFrame]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, group["row"])) for group in groups)
