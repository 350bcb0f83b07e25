"""Exact and near duplicates as findings: across splits, across folds, across labels, and within."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pcam_ssl.audit.findings import Finding, counted
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.duplicates import conflicting_duplicates, duplicate_keys, is_flat, near_pairs, view_bits

NAMED = 3
EXACT_MOVES = {
    "split": "drop the copies from one split and import again; until then scores of that split are too good",
    "fold": "drop all but one copy and import again, or train with cv.scheme=grouped on slide ids that hold the copies together",
}


def flat_finding(dataset: Dataset) -> list[Finding]:
    """Patches of one flat colour, which do not count as duplicates."""
    flat = dataset.patches[is_flat(dataset.patches)]
    if flat.empty:
        return []
    rows = (tuple(map(int, flat["row"])),)
    what = f"{len(flat):,} patches are of one flat colour; they are not counted as duplicates"
    return [Finding("note", "flat patches", what, len(flat), tuple(flat["id"].head(NAMED)), "drop them: they show no tissue", rows)]


def exact_findings(dataset: Dataset, folds: pd.Series | None = None) -> list[Finding]:
    """Patches with the same pixels, also mirrored or turned. `folds` is the fold of each row that has one, given a run."""
    patches = dataset.patches.set_index("row", drop=False)
    keys = duplicate_keys(dataset)
    findings = _conflicts(conflicting_duplicates(patches, keys))
    textured = patches[~is_flat(patches).to_numpy()]
    key = keys.loc[textured.index]
    copies = textured.assign(key=key)[key.duplicated(keep=False)]
    if copies.empty:
        text = f"no two of {len(textured):,} patches have the same pixels, mirrored and turned ones included"
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


NAMED_PAIRS, KEPT = 3, 1000
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
    """Pairs of one kind: their number, and the closest ones."""

    count: int = 0
    closest: np.ndarray = field(default_factory=lambda: np.empty((0, 3), dtype=np.int64))
    """int64 [n, 3]: distance and the two positions, sorted; at most `KEPT` rows."""

    def add(self, chunk: np.ndarray) -> None:
        """Count pairs [n, 3] and keep the closest."""
        self.count += len(chunk)
        merged = np.concatenate([self.closest, chunk])
        self.closest = merged[np.lexsort(merged.T[::-1])][:KEPT]


def near_findings(dataset: Dataset, near_bits: int, folds: pd.Series | None = None) -> list[Finding]:
    """Pairs of patches that show one picture and are no exact duplicates: view hashes within `near_bits` bits and a high `image_correlation`.

    Flat patches are excluded. `folds` is the fold of each row that has one, given a run.
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
    """Codes [N] by kind (split, label, fold) in which the patches of a pair may differ; -1 where unknown."""
    places = {"split": pd.factorize(patches["split"])[0], "label": patches["label"].fillna(-1).to_numpy(np.int64)}
    if folds is not None:
        places["fold"] = pd.factorize(folds.reindex(patches["row"]))[0]
    return places


def _sort_pairs(dataset: Dataset, patches: pd.DataFrame, near_bits: int, places: dict) -> tuple[dict[str, Pairs], int]:
    """The pairs that show one picture, by the kind in which they differ, and the number of pairs that do not show one picture."""
    keys = pd.factorize(duplicate_keys(dataset).loc[patches["row"]])[0]
    rows = patches["row"].to_numpy()
    kinds, unlike = {name: Pairs() for name in (*places, "within")}, 0
    for i, j, distance in near_pairs(view_bits(patches["view_hash"]), near_bits):
        pairs = np.stack([distance, i, j], axis=1).astype(np.int64)[keys[i] != keys[j]]
        alike = image_correlation(dataset.pixels, rows[pairs[:, 1]], rows[pairs[:, 2]]) >= SAME_PICTURE
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
    examples = tuple(f"{ids[i]} ~ {ids[j]} ({distance} bits)" for distance, i, j in pairs.closest[:NAMED_PAIRS])
    shown = tuple((int(rows[i]), int(rows[j])) for _, i, j in pairs.closest)
    level = "note" if kind == "within" else "suspect"
    return Finding(level, "near duplicates", what, pairs.count, examples, MOVES.get(kind, MOVE), shown)


GRID = 24
SAME_PICTURE = 0.97
"""Image correlation from which two patches show one picture. On 13,000 PCam patches: after saving as JPEG of quality 75, 99 % reach 0.999 and the
lowest is 0.984; different patches whose view hashes are within 3 bits, all nearly blank, stay below 0.95."""
AT_ONCE = 1024


def image_correlation(pixels: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Correlation float64 [n] of the grey images of rows `first` [n] and `second` [n], the highest over the eight dihedral views.

    `pixels` uint8 [N, H, H, 3] are averaged to 24 x 24, so that noise and a shift by one pixel do not count; nor do brightness and
    contrast. At most 1,024 pairs are held in memory at once.
    """
    parts = [np.empty(0)]
    for start in range(0, len(first), AT_ONCE):
        i, j = first[start : start + AT_ONCE], second[start : start + AT_ONCE]
        rows, place = np.unique(np.concatenate([i, j]), return_inverse=True)
        pictures = _pictures(pixels[rows])
        one, other = pictures[place[: len(i)]], pictures[place[len(i) :]]
        parts.append(np.max([np.einsum("nd,nd->n", one, other[:, view]) for view in VIEWS], axis=0))
    return np.concatenate(parts)


def _pictures(pixels: np.ndarray) -> np.ndarray:
    """Grey values on the grid, centred and scaled to length 1: [n, 576]."""
    size_px = pixels.shape[1]
    edges = np.linspace(0, size_px, GRID + 1)
    shares = np.clip(
        np.minimum(edges[1:, None], np.arange(1, size_px + 1)) - np.maximum(edges[:-1, None], np.arange(size_px)), 0, None
    )
    grey = pixels @ np.array([1.0, 2.0, 1.0])
    flat = (shares @ grey @ shares.T).reshape(len(pixels), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)


def _views() -> list[np.ndarray]:
    """The eight views as permutations of the grid's 576 cells."""
    grid = np.arange(GRID * GRID).reshape(GRID, GRID)
    return [np.rot90(side, turns).ravel() for side in (grid, grid[:, ::-1]) for turns in range(4)]


VIEWS = _views()
