"""Slide-clustered bootstrap (Field and Welsh 2007) of scores, also of paired differences.

Patches of one slide share stain, scanner, and patient, so an interval from resampled patches is too narrow. Slides are drawn with
replacement instead. All scores are computed from counts of tumor and other patches in cells of equal prob. One matrix product
turns the drawn slides into these counts. With up to `CELLS` distinct probs, a cell is one prob and every resampled score is
exact. With more, a cell is a narrow range of ranks. Compared with exact cells at 220,000 rows, 200 slides, AUROC 0.956, an end
of an interval moves by at most 1e-7 (AUROC), 1e-5 (average precision), 1.2e-4 (sensitivity at a given specificity
and the reverse, whose intervals are 0.03 to 0.07 wide), and not at all for scores at prob 0.5. NLL, Brier score and ECE need only
the sums of each slide, as means and counts do (`resampled_sums`).
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.sparse import csr_array

from pcam_ssl.evaluation.confidence import PLAIN, POSITIVE, SHARE, Groups, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.metrics import (
    ROUNDING,
    SENSITIVITY,
    SPECIFICITIES,
    auroc,
    ece_bin,
    point_scores,
    row_brier,
    row_nll,
    sensitivity_name,
    specificity_name,
)

CELLS = 16384
TOO_FEW = "fewer than two slides hold the rarer class, so no spread between slides can be seen"
# Up to so many groups, sums above each cell are one product of the groups' own sums. With more, this takes longer than to add the cells up.
FEW_GROUPS = 128
# Counts in one chunk of resamples: about 2 MB per array, which stays in the processor's cache.
CHUNK = 2**18
# Weights in one chunk: 64 MB. This bounds memory where every patch is its own group.
WEIGHTS = 2**23
# Weights of one seed that are kept for further scores, up to 8 MB.
KEPT_DRAWS = 2**20
# Numbers of an array of 16 MB, see `_drawn`.
LARGE = 2**21
# Bytes of the resampled scores that are kept, 0.2 MB for a prediction at 2,000 resamples: a verdict compares each round with several others.
REMEMBERED = 2**24
_remembered: OrderedDict[bytes, dict[str, np.ndarray]] = OrderedDict()


@dataclass(frozen=True)
class Ranks:
    """Counts of patches in every resample: other and tumor ones up to and in each of B cells, from high to low prob, and tumor ones in it, [R, B] each."""

    false: np.ndarray
    true: np.ndarray
    tumor: np.ndarray


@dataclass(frozen=True)
class ManyGroups:
    """Patches of G groups in B cells. Only few groups have patches in a cell, so drawn groups are counted in each cell and the cells added up."""

    counts: csr_array  # [2B, G]: the other patches of every cell, then the tumor patches

    @classmethod
    def of(cls, place: np.ndarray, labels: np.ndarray, codes: np.ndarray, n_groups: int) -> "ManyGroups":
        n = place.max() + 1
        return cls(csr_array((np.ones(len(labels)), (place + n * labels, codes)), shape=(2 * n, n_groups)))

    @property
    def n(self) -> int:
        """B, the number of cells."""
        return self.counts.shape[0] // 2

    def ranks(self, weights: np.ndarray) -> tuple[Ranks, np.ndarray]:
        """The counts where groups are drawn as often as `weights` [G, R] says, and the `pairs`."""
        other, tumor = self._drawn(weights)
        true = np.cumsum(tumor, axis=1)
        return Ranks(np.cumsum(other, axis=1), true, tumor), _pairs(other, tumor, true)

    def pairs(self, weights: np.ndarray) -> np.ndarray:
        """Pairs [R] of another and a tumor patch in which the tumor patch has the higher prob, a tie being half of one."""
        other, tumor = self._drawn(weights)
        return _pairs(other, tumor, np.cumsum(tumor, axis=1))

    def _drawn(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Counts of other and of tumor patches in the cells, [R, B] each: a row a resample, since sums along rows are the faster ones."""
        drawn = np.ascontiguousarray((self.counts @ weights).T)
        return drawn[:, : self.n], drawn[:, self.n :]


def _pairs(other: np.ndarray, tumor: np.ndarray, true: np.ndarray) -> np.ndarray:
    halved = tumor / 2
    # Sums of half integers are exact in any order.
    return np.einsum("rb,rb->r", other, np.subtract(true, halved, out=halved))


@dataclass(frozen=True)
class FewGroups:
    """The same where groups are few. Cells without a tumor patch are left out: no score reads the counts there.

    `false`, `true` and `tumor` [G, B] are a group's part of `Ranks`, `ordered` [G, G] the pairs of a tumor patch of one group and another
    patch of one that are ranked right.
    """

    false: np.ndarray
    true: np.ndarray
    tumor: np.ndarray
    ordered: np.ndarray

    @classmethod
    def of(cls, place: np.ndarray, labels: np.ndarray, codes: np.ndarray, n_groups: int) -> "FewGroups":
        counts = np.zeros((2, n_groups, place.max() + 1))
        np.add.at(counts, (labels, codes, place), 1)
        other, tumor = counts
        false, true = np.cumsum(other, axis=1), np.cumsum(tumor, axis=1)
        below = false[:, -1:] - false + other / 2
        held = tumor.any(axis=0)
        return cls(*(np.ascontiguousarray(each[:, held]) for each in (false, true, tumor)), tumor @ below.T)

    @property
    def n(self) -> int:
        return self.true.shape[1]

    def ranks(self, weights: np.ndarray) -> tuple[Ranks, np.ndarray]:
        # Sums of integers are exact in any order, so these are the counts of `ManyGroups`.
        return Ranks(*(weights.T @ each for each in (self.false, self.true, self.tumor))), self.pairs(weights)

    def pairs(self, weights: np.ndarray) -> np.ndarray:
        return np.einsum("gr,gr->r", weights, self.ordered @ weights)


@dataclass(frozen=True)
class Cells:
    """Rows binned by prob, from high to low: B cells, G groups."""

    counts: ManyGroups | FewGroups
    sums: csr_array
    """[6 + E, G] of each group: NLL, Brier score, other and tumor patches, other and tumor patches with a prob of 0.5 or more, and
    label - prob in each of the E calibration bins that occur."""


Scored = Callable[[Cells, np.ndarray], dict[str, np.ndarray]]


def intervals(labels, probs, groups, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> dict[str, dict]:
    """Every score of `point_scores` with its interval (`confidence.student_interval`): {name: {"value", "low", "high", "resamples"}}.

    `labels` [N] are 0 or 1, `probs` [N] of class 1. `groups` [N] is the slide of each row; rows without a slide count as one slide.
    With `groups` None each patch is its own group, and intervals are too narrow where patches share slides. `resamples` counts the
    resamples in which the score is defined (both classes drawn); the others are dropped. Without an interval, `low` and `high` are
    None and `reason` says why. The ECE is biased upwards on few rows, and so is its interval.
    """
    return intervals_and_differences(labels, [probs], groups, resamples, seed, level)[0][0]


def paired_differences(
    labels, probs_a, probs_b, groups, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, dict]:
    """Score of b minus score of a with intervals, on the same rows and the same resampled slides; in the form of `intervals`."""
    return intervals_and_differences(labels, [probs_a, probs_b], groups, resamples, seed, level)[1][1]


def intervals_and_differences(
    labels, several_probs, groups, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> list[tuple[dict[str, dict], dict[str, dict]]]:
    """For each of `several_probs` ([N] each) its `intervals` and its `paired_differences` to the first. All share the same resamples."""
    labels = np.asarray(labels, dtype=np.int64)
    codes = group_codes(groups, len(labels))
    counted = count_groups(codes, labels)
    values = [point_scores(labels, probs) for probs in several_probs]
    drawn = _resampled(labels, several_probs, codes, counted.n, resamples, seed) if counted.enough else [None] * len(values)
    first, drawn_first = values[0], drawn[0]
    results = []
    for value, draws in zip(values, drawn, strict=True):
        scores = {name: _interval(value[name], draws and draws[name], counted, _kind(name), level) for name in value}
        gaps = {name: None if value[name] is None else value[name] - first[name] for name in value}
        differences = {
            name: _interval(gaps[name], draws and draws[name] - drawn_first[name], counted, PLAIN, level) for name in value
        }
        results.append((scores, differences))
    return results


def within_folds(labels, probs, folds, groups, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> dict:
    """Mean over folds of the AUROC within each fold, with its interval: {"value", "low", "high", "resamples", "folds"}.

    Forman and Scholz 2010, Apples-to-apples in cross-validation studies. A pooled AUROC also ranks patches of different folds
    against each other, although the networks of two folds need not share a scale. The mean of per-fold AUROCs avoids that. `folds`
    int [N]. Folds with one class have no AUROC and are left out; the key `folds` counts the others. Slides are resampled within folds.
    """
    labels, probs, folds = np.asarray(labels, dtype=np.int64), np.asarray(probs), np.asarray(folds)
    codes = group_codes(groups, len(labels))
    counted = count_groups(codes, labels)
    parts = [folds == fold for fold in np.unique(folds) if len(set(labels[folds == fold])) == 2]
    per_fold = [_auroc_resampled(labels[rows], probs[rows], codes[rows], resamples, (seed, k)) for k, rows in enumerate(parts)]
    value = float(np.mean([own for own, _ in per_fold])) if per_fold else None
    # No interval where one fold has none: that fold would count as without spread and make the interval too narrow.
    resampled = bool(per_fold) and all(draws is not None for _, draws in per_fold)
    drawn = np.mean([draws for _, draws in per_fold], axis=0) if resampled else None
    return {**_interval(value, drawn, counted, SHARE, level), "folds": len(parts)}


def _auroc_resampled(labels, probs, codes, resamples: int, seed) -> tuple[float, np.ndarray | None]:
    """AUROC and its resampled values [R], widened by the small-sample correction; None instead where there are too few groups."""
    value, counted = auroc(labels, probs), count_groups(codes, labels)
    if not counted.enough:
        return value, None
    codes = np.unique(codes, return_inverse=True)[1]
    drawn = _resampled(labels, [probs], codes, counted.n, resamples, seed, _auroc)[0]["auroc"]
    return value, value + (drawn - value) * np.sqrt(counted.correction)


def resampled_auroc(labels, several_probs, groups, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """AUROC of each of `several_probs` ([N] each) in every resample, float64 [P, R]; all share the resamples. NaN where it is undefined.

    R is 0 where fewer than two `groups` ([N], as in `intervals`) hold the rarer class.
    """
    labels = np.asarray(labels, dtype=np.int64)
    codes = group_codes(groups, len(labels))
    counted = count_groups(codes, labels)
    if not counted.enough:
        return np.empty((len(several_probs), 0))
    return np.stack([draws["auroc"] for draws in _resampled(labels, several_probs, codes, counted.n, resamples, seed, _auroc)])


def _kind(name: str) -> str:
    return POSITIVE if name == "nll" else SHARE


def _interval(value: float | None, drawn: np.ndarray | None, groups: Groups, kind: str, level: float) -> dict:
    drawn = np.empty(0) if drawn is None else drawn[~np.isnan(drawn)]
    if value is None:
        reason = "the score is not defined: one class only"
    elif len(drawn) < 2:
        reason = TOO_FEW
    else:
        low, high = student_interval(value, drawn, groups, kind, level)
        return {"value": value, "low": float(low), "high": float(high), "resamples": len(drawn)}
    return {"value": value, "low": None, "high": None, "resamples": len(drawn), "reason": reason}


def _resampled(
    labels, several_probs, codes, n_groups: int, resamples: int, seed, scored: Scored | None = None
) -> list[dict[str, np.ndarray]]:
    """All scores, or those that `scored` gives, in every resample, for each of `several_probs`: {name: [R]}, NaN where undefined.

    They do not depend on what is resampled beside them, so those of the last predictions are remembered.
    """
    scored = scored or _all_scores
    several = [np.asarray(probs, dtype=np.float64) for probs in several_probs]
    shared = hashlib.blake2b(repr((n_groups, resamples, seed, scored.__name__)).encode())
    for array in (labels, codes):
        shared.update(np.ascontiguousarray(array, dtype=np.int64))
    keys = []
    for probs in several:
        own = shared.copy()
        own.update(np.ascontiguousarray(probs))
        keys.append(own.digest())
    found = {key: _remembered[key] for key in keys if key in _remembered}
    missing = {key: probs for key, probs in zip(keys, several, strict=True) if key not in found}
    if missing:
        drawn = _drawn(labels, list(missing.values()), codes, n_groups, resamples, seed, scored)
        found |= zip(missing, drawn, strict=True)
    for key in keys:
        _remembered[key] = found[key]
        _remembered.move_to_end(key)
    while sum(score.nbytes for scores in _remembered.values() for score in scores.values()) > REMEMBERED:
        _remembered.popitem(last=False)
    return [found[key] for key in keys]


def _drawn(labels, several_probs, codes, n_groups: int, resamples: int, seed, scored: Scored) -> list[dict[str, np.ndarray]]:
    """What `_resampled` returns, computed."""
    # Freeing an array of this size tells glibc to keep smaller ones in the process. Else the kernel clears their pages anew for each chunk.
    np.empty(LARGE)
    several = [_cells(labels, probs, codes, n_groups) for probs in several_probs]
    step = max(1, min(resamples, WEIGHTS // n_groups, CHUNK // max(cells.counts.n for cells in several)))
    chunks = [[] for _ in several]
    for weights in _draws(n_groups, resamples, seed, step):
        for cells, done in zip(several, chunks, strict=True):
            done.append(scored(cells, weights))
    drawn = [{name: np.concatenate([chunk[name] for chunk in done]) for name in done[0]} for done in chunks]
    for score in (score for scores in drawn for score in scores.values()):
        score.setflags(write=False)  # several callers get the same ones
    return drawn


def _draws(n_groups: int, resamples: int, seed, step: int) -> Iterator[np.ndarray]:
    """How often each group is drawn, float64 [G, n] for each `step` resamples; every column sums to G."""
    if n_groups * resamples <= KEPT_DRAWS:
        whole = _few_draws(n_groups, resamples, seed)
        yield from (whole[:, start : start + step] for start in range(0, resamples, step))
        return
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, step):
        yield _draw(rng, n_groups, min(step, resamples - start))


@lru_cache(maxsize=16)
def _few_draws(n_groups: int, resamples: int, seed) -> np.ndarray:
    """All of them [G, R] where they are few. They are the same for every score of a run, so the last ones are kept."""
    draws = _draw(np.random.default_rng(seed), n_groups, resamples)
    draws.setflags(write=False)
    return draws


def _draw(rng: np.random.Generator, n_groups: int, n: int) -> np.ndarray:
    draws = rng.integers(n_groups, size=(n, n_groups))
    draws += n_groups * np.arange(n)[:, None]
    counts = np.bincount(draws.ravel(), minlength=n * n_groups)
    return np.ascontiguousarray(counts.reshape(n, n_groups).T, dtype=np.float64)


def _cells(labels: np.ndarray, probs: np.ndarray, codes: np.ndarray, n_groups: int) -> Cells:
    falling, place, repeats = np.unique(-probs, return_inverse=True, return_counts=True)
    distinct = -falling
    if len(distinct) > CELLS:
        rank = np.cumsum(repeats) - repeats
        edges = np.stack([rank * CELLS // len(probs), ece_bin(distinct), distinct >= 0.5])
        place = np.concatenate([[0], np.cumsum((np.diff(edges) != 0).any(axis=0))])[place]
    counts = (FewGroups if n_groups <= FEW_GROUPS else ManyGroups).of(place, labels, codes, n_groups)
    occurring, bins = np.unique(ece_bin(probs), return_inverse=True)
    each = [row_nll(labels, probs), row_brier(labels, probs), labels == 0, labels == 1]
    each += [(labels == label) & (probs >= 0.5) for label in (0, 1)]
    rows = [np.full(len(labels), row) for row in range(len(each))]
    values, rows = np.concatenate([*each, labels - probs]), np.concatenate([*rows, len(each) + bins])
    sums = csr_array((values, (rows, np.tile(codes, len(each) + 1))), shape=(len(each) + len(occurring), n_groups))
    return Cells(counts, sums)


def _drawn_sums(cells: Cells, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the rows of `Cells.sums` in every resample: the first six [6, R], and those of the calibration bins [R, E]."""
    sums = np.ascontiguousarray((cells.sums @ weights).T)
    return sums[:, :6].T, sums[:, 6:]


def _auroc(cells: Cells, weights: np.ndarray) -> dict[str, np.ndarray]:
    """`_all_scores` of the AUROC alone, without the work of the others."""
    (_, _, n_other, n_tumor, _, _), _ = _drawn_sums(cells, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"auroc": cells.counts.pairs(weights) / (n_other * n_tumor)}


def _all_scores(cells: Cells, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The names of `point_scores`, each [R], where the groups are drawn as often as `weights` [G, R] says; NaN where undefined."""
    (nll, brier, n_other, n_tumor, false_called, true_called), bins = _drawn_sums(cells, weights)
    ranks, pairs = cells.counts.ranks(weights)
    false, true = ranks.false, ranks.true
    n = n_other + n_tumor
    each = np.arange(len(false))
    with np.errstate(invalid="ignore", divide="ignore"):
        defined = np.where((n_other > 0) & (n_tumor > 0), 1.0, np.nan)
        # In place: new arrays of this size take more time than the sums.
        gained = true + false
        np.maximum(gained, 1, out=gained)
        np.multiply(np.divide(true, gained, out=gained), ranks.tumor, out=gained)  # precision times tumor patches
        scores = {
            "auroc": defined * pairs / (n_other * n_tumor),
            "average_precision": defined * gained.sum(axis=1) / n_tumor,
            "accuracy": (true_called + n_other - false_called) / n,
            "balanced_accuracy": defined * (true_called / n_tumor + 1 - false_called / n_other) / 2,
            "f1": np.where(n_tumor > 0, 2 * true_called / (n_tumor + true_called + false_called), np.nan),
            "nll": nll / n,
            "brier": brier / n,
            "ece": np.abs(bins).sum(axis=1) / n,
        }
        for bar in SPECIFICITIES:
            allowed = _places(false, (1 - bar + ROUNDING) * n_other, "right")
            reached = true[each, np.maximum(allowed - 1, 0)] * (allowed > 0)
            scores[sensitivity_name(bar)] = defined * reached / n_tumor
        short = _places(true, (SENSITIVITY - ROUNDING) * n_tumor, "left")
        lost = false[each, np.minimum(short, cells.counts.n - 1)]
        scores[specificity_name(SENSITIVITY)] = defined * (1 - lost / n_other)
    return scores


def _places(rising: np.ndarray, bars: np.ndarray, side: str) -> np.ndarray:
    """`np.searchsorted` of each bar [R] in its row of `rising` [R, B]."""
    return np.array([np.searchsorted(row, bar, side) for row, bar in zip(rising, bars, strict=True)])
