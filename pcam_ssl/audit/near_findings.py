"""Near duplicates as findings: across splits, across folds, across labels, and within. No torch."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pcam_ssl.audit.findings import Finding, counted
from pcam_ssl.audit.likeness import SAME_PICTURE, likeness
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.duplicates import duplicate_keys, is_flat
from pcam_ssl.data.near_duplicates import near_pairs, view_bits

NAMED, KEPT = 3, 1000
WHERE = {
    "split": "are in two splits",
    "fold": "are in two folds",
    "label": "have conflicting labels",
    "within": "are in one place, and of no conflicting labels",
}
MOVES = {"label": "find out which label is right"}
MOVE = "look at them with --html; keep one of each"


@dataclass
class Pairs:
    """Pairs of one kind: how many, and the closest ones seen."""

    count: int = 0
    closest: np.ndarray = field(default_factory=lambda: np.empty((0, 3), dtype=np.int64))
    """int64 [n, 3]: distance and the two places, by distance, then place; at most `KEPT`."""

    def add(self, chunk: np.ndarray) -> None:
        """Count pairs [n, 3] and keep the closest."""
        self.count += len(chunk)
        merged = np.concatenate([self.closest, chunk])
        self.closest = merged[np.lexsort(merged.T[::-1])][:KEPT]


def near_findings(dataset: Dataset, near_bits: int, folds: pd.Series | None = None) -> list[Finding]:
    """Pairs of patches that are one picture, but no exact duplicates: view hashes within `near_bits` bits, and `likeness` agrees.

    Flat patches are left out. `folds` is the fold of each row that has one, given a run.
    """
    patches = dataset.patches[~is_flat(dataset.patches)].reset_index(drop=True)
    kinds, unlike = _sort_pairs(dataset, patches, near_bits, _places(patches, folds))
    findings = [_finding(name, pairs, patches, near_bits) for name, pairs in kinds.items() if pairs.count]
    if not findings:
        findings.append(Finding("ok", "near duplicates", f"no two of {len(patches):,} patches are one picture saved twice"))
    if unlike:
        what = f"{counted(unlike, 'pair')} within {near_bits} bits of view hash but of different content (nearly blank patches, as a rule)"
        findings.append(Finding("ok", "near duplicates", f"{what} left out"))
    return findings


def _places(patches: pd.DataFrame, folds: pd.Series | None) -> dict[str, np.ndarray]:
    """Codes [N] of what a pair may lie across; -1 where unknown."""
    places = {"split": pd.factorize(patches["split"])[0], "label": patches["label"].fillna(-1).to_numpy(np.int64)}
    if folds is not None:
        places["fold"] = pd.factorize(folds.reindex(patches["row"]))[0]
    return places


def _sort_pairs(dataset: Dataset, patches: pd.DataFrame, near_bits: int, places: dict) -> tuple[dict[str, Pairs], int]:
    """The pairs that are one picture, by what they lie across, and the number of those that are not."""
    keys = pd.factorize(duplicate_keys(dataset).loc[patches["row"]])[0]
    rows = patches["row"].to_numpy()
    kinds, unlike = {name: Pairs() for name in (*places, "within")}, 0
    for i, j, distance in near_pairs(view_bits(patches["view_hash"]), near_bits):
        pairs = np.stack([distance, i, j], axis=1).astype(np.int64)[keys[i] != keys[j]]
        alike = likeness(dataset.pixels, rows[pairs[:, 1]], rows[pairs[:, 2]]) >= SAME_PICTURE
        unlike += int((~alike).sum())
        pairs = pairs[alike]
        within = np.ones(len(pairs), dtype=bool)
        for name, codes in places.items():
            one, other = codes[pairs[:, 1]], codes[pairs[:, 2]]
            across = (one != other) & (one >= 0) & (other >= 0)
            kinds[name].add(pairs[across])
            within &= ~across
        kinds["within"].add(pairs[within])
    return kinds, unlike


def _finding(kind: str, pairs: Pairs, patches: pd.DataFrame, near_bits: int) -> Finding:
    what = f"{counted(pairs.count, 'pair')} of near duplicates (within {near_bits} bits, one picture) {WHERE[kind]}"
    ids, rows = patches["id"].to_numpy(), patches["row"].to_numpy()
    examples = tuple(f"{ids[i]} ~ {ids[j]} ({distance} bits)" for distance, i, j in pairs.closest[:NAMED])
    shown = tuple((int(rows[i]), int(rows[j])) for _, i, j in pairs.closest)
    level = "note" if kind == "within" else "suspect"
    return Finding(level, "near duplicates", what, pairs.count, examples, MOVES.get(kind, MOVE), shown)
