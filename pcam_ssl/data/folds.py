"""Folds as a table (which fold scores a patch, and the inner slides of each fold), and units, the networks to train."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.errors import LeakError, UserError
from pcam_ssl.tables import FOLD_COLUMNS, conform, read_table, write_table

GROUPINGS = ("slides", "stain clusters", "none")


@dataclass(frozen=True)
class Folds:
    """Folds of the labelled patches, one row per patch, in dataset row order.

    `frame` holds `id`, `wsi`, `group` (never split: slide, stain cluster, or the patch itself), `fold` (the fold that
    scores the row; -1 = never scored), `visible` (False: the label is hidden and used for scoring only), and a bool column
    `inner_K` per fold. Where folds cross-fit, `part_K` names the inner network (0..) that scores the row and never learns from it (-1:
    none); the last of these columns is that of the refit. `notes` are sentences the user must see. `inner_share` is the requested
    share; None where the file lacks it.
    """

    frame: pd.DataFrame
    grouping: str
    notes: tuple[str, ...] = ()
    inner_share: float | None = None

    @property
    def n_folds(self) -> int:
        """Number of folds that score patches."""
        return sum(name.startswith("inner_") for name in self.frame.columns)

    @property
    def scheme(self) -> str:
        """The cv.scheme of these folds: official has one fold, random has groups of one patch."""
        if self.n_folds == 1:
            return "official"
        return "random" if self.grouping == "none" else "grouped"

    @property
    def learnable(self) -> np.ndarray:
        """Bool [N]: rows that at least one fold may train on. Under the official scheme all but the valid split, else all."""
        return np.any([~self.score_mask(fold) for fold in range(self.n_folds)], axis=0)

    @property
    def label_budget(self) -> int | None:
        """Number of labels that may be trained on; None where no label is hidden."""
        shown = self.frame["visible"].to_numpy()[self.learnable]
        return None if shown.all() else int(shown.sum())

    @property
    def slide_budget(self) -> int | None:
        """Number of slides whose labels may be trained on; None where no label is hidden, or only some labels of a slide are."""
        rows = self.frame[self.learnable]
        shown = rows.groupby("group")["visible"].agg(["all", "any"])
        if rows["visible"].all() or self.grouping == "none" or (shown["any"] & ~shown["all"]).any():
            return None
        return int(shown["all"].sum())

    def pool_mask(self, fold: int) -> np.ndarray:
        """Bool [N]: rows that fold `fold` may train on, with or without label. They are neither scored by it nor inner."""
        return ~self.score_mask(fold) & ~self.frame[f"inner_{fold}"].to_numpy()

    @property
    def cross_fitted(self) -> bool:
        """Whether inner networks score the rows that a fold trains on, in place of held-out inner slides."""
        return "part_0" in self.frame

    def parts(self, number: int) -> np.ndarray:
        """Int [N]: the inner network of fold `number` that scores the row, -1 where none does; of the refit where `number` is `n_folds`."""
        return self.frame[f"part_{number}"].to_numpy(np.int64, na_value=-1)

    def train_mask(self, fold: int) -> np.ndarray:
        """Bool [N]: rows whose labels train fold `fold`."""
        rows = ~self.score_mask(fold) & self.learnable if self.cross_fitted else self.pool_mask(fold)
        return rows & self.frame["visible"].to_numpy()

    def inner_mask(self, fold: int) -> np.ndarray:
        """Bool [N]: rows whose labels choose calibration and thresholds of fold `fold`: its inner slides (which also choose the epoch),
        or all training rows where folds cross-fit."""
        return self.frame[f"inner_{fold}"].to_numpy() & self.frame["visible"].to_numpy()

    def score_mask(self, fold: int) -> np.ndarray:
        """Bool [N]: rows that fold `fold` scores and never trains on."""
        return (self.frame["fold"] == fold).to_numpy(dtype=bool)


def labelled_rows(patches: pd.DataFrame) -> pd.DataFrame:
    """The patches that folds are made of: those with a label in the splits `train` and `valid`, in dataset row order."""
    usable = patches["label"].notna() & patches["split"].isin(["train", "valid"])
    return patches[usable].sort_values("row").reset_index(drop=True)


def score_groups(folds: Folds, oof: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """The groups [N] that the bootstrap resamples and their unit: slides where known, else stain clusters, else None and "patch"."""
    if oof.wsi.notna().all():
        return oof.wsi, "slide"
    if folds.grouping == "stain clusters":
        return folds.frame.set_index("id").group.loc[oof.id].reset_index(drop=True), "stain cluster"
    return None, "patch"


def stored_groups(path: Path | str, table: pd.DataFrame) -> pd.Series | None:
    """The groups of `score_groups` from a run's folds.parquet, without its dataset. The file is not read where all slides are known."""
    if table.wsi.notna().all():
        return table.wsi
    frame, metadata = read_table(path)
    return score_groups(Folds(frame, metadata["grouping"]), table)[0]


def check_groups(frame: pd.DataFrame, source: str) -> None:
    """Raises LeakError naming `source` where a group is in two folds, or in a fold's training and inner part."""
    n_folds_of_group = frame.groupby("group")["fold"].nunique()
    if (n_folds_of_group > 1).any():
        raise LeakError(f"{source}: group {n_folds_of_group.idxmax()} is in {n_folds_of_group.max()} folds; make the folds again")
    for name in [name for name in frame.columns if name.startswith("inner_")]:
        scored = frame["fold"] == int(name.removeprefix("inner_"))
        if frame.loc[scored, name].any():
            raise LeakError(f"{source}: {name} holds patches that its own fold scores; make the folds again")
        both = frame[~scored].groupby("group")[name].nunique()
        if (both > 1).any():
            raise LeakError(f"{source}: group {both.idxmax()} is in the training part and in {name}; make the folds again")
    for name in [name for name in frame.columns if name.startswith("part_")]:
        split = frame.groupby("group")[name].nunique()
        if (split > 1).any():
            raise LeakError(f"{source}: group {split.idxmax()} is in two inner folds of {name}; make the folds again")


def write_folds(folds: Folds, path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Write the folds as parquet. The metadata of the file holds grouping, notes and inner share."""
    facts = {"grouping": folds.grouping, "notes": json.dumps(folds.notes)}
    facts |= {} if folds.inner_share is None else {"inner_share": repr(folds.inner_share)}
    write_table(path, folds.frame, {**(metadata or {}), **facts})


def read_folds(path: Path | str, patches: pd.DataFrame) -> Folds:
    """The folds in a file, for the dataset with these `patches`.

    Raises UserError where the file is not a folds table or was made for other patches or slides, LeakError where a group is split.
    """
    frame, metadata = read_table(path)
    inner = [name for name in frame.columns if str(name).startswith("inner_")]
    parts = [name for name in frame.columns if str(name).startswith("part_")]
    valid = inner and sorted(inner) == sorted(f"inner_{k}" for k in range(len(inner)))
    try:
        notes, share = json.loads(metadata["notes"]), metadata.get("inner_share")
        share = None if share is None else float(share)
    except (KeyError, ValueError):
        valid = False
    if metadata.get("grouping") not in GROUPINGS or not valid:
        raise UserError(f"{path}: not a folds table; name the folds.parquet of a run")
    try:
        frame = conform(frame, {**FOLD_COLUMNS, **dict.fromkeys(inner, "bool"), **dict.fromkeys(parts, "Int8")})
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a folds table ({error}); name the folds.parquet of a run") from None
    rows = labelled_rows(patches)
    if list(frame["id"]) != list(rows["id"]):
        n_shared = frame["id"].isin(rows["id"]).sum()
        raise UserError(
            f"{path}: made for other patches ({len(frame)} there, {len(rows)} labelled in the dataset, {n_shared} in both); "
            "use the dataset of that run, or another run folder"
        )
    slides = rows["wsi"].astype("str")
    if metadata["grouping"] == "slides" and not (frame["group"] == slides).all():
        moved = frame["id"][frame["group"] != slides]
        raise UserError(f"{path}: {len(moved)} patches have another slide now, first {moved.iloc[0]}; use another run folder")
    check_groups(frame, str(path))
    return Folds(frame, metadata["grouping"], tuple(notes), share)


REFIT = "refit"


@dataclass(frozen=True)
class Unit:
    """One network to train. The masks `[N]` over the rows of the folds select training patches, inner patches, and scored patches."""

    name: str
    number: int
    train: np.ndarray
    inner: np.ndarray
    score: np.ndarray
    round: int = 0
    pseudo: pd.DataFrame | None = None
    """Pseudo-labelled training patches: `id`, `label`, `weight`."""
    test: bool = True
    """Whether it predicts the test split."""
    parts: tuple["Unit", ...] = ()
    """Cross-fitting: the inner networks. Each scores its `inner` patches and learns from the others of the unit's training patches."""
    part: int | None = None
    """Which inner network this is; None for a unit with a network of its own."""
    steps: int | None = None
    """Steps per epoch, where they are those of another training (the control of pseudo-label rounds); None: as many as its patches ask for."""
    start: Path | None = None
    """Folder of the network whose weights it starts from (`pseudo.start: teacher`); None: the recipe's start."""

    @property
    def whole(self) -> str:
        """The name of the unit with a network of its own that this is, or is a part of."""
        return self.name.partition("/")[0]

    @property
    def held_out(self) -> np.ndarray:
        """Bool [N]: rows that the unit's own network must not learn from, in whatever way: those it scores, and inner ones it does not train on."""
        return self.score | (self.inner & ~self.train)


def fold_unit(folds: Folds, k: int) -> Unit:
    """The unit of fold `k`."""
    return _with_parts(folds, Unit(f"fold-{k}", k, folds.train_mask(k), folds.inner_mask(k), folds.score_mask(k)))


def whole_unit(folds: Folds, unit: Unit) -> Unit:
    """The fold or refit that `unit` belongs to, with its inner networks and without pseudo-labels."""
    return refit_unit(folds) if unit.whole == REFIT else fold_unit(folds, unit.number)


def refit_unit(folds: Folds) -> Unit:
    """The unit trained on all visible labels that any fold trains on. It scores nothing.

    The inner slides of fold 0 calibrate it and are left out, except where folds cross-fit. Under the official scheme it does not train
    on the valid split.
    """
    train = folds.learnable & folds.frame["visible"].to_numpy()
    nothing = np.zeros(len(train), bool)
    if folds.cross_fitted:
        return _with_parts(folds, Unit(REFIT, folds.n_folds, train, train, nothing))
    return Unit(REFIT, folds.n_folds, train & ~folds.frame["inner_0"].to_numpy(), folds.inner_mask(0), nothing)


def _with_parts(folds: Folds, unit: Unit) -> Unit:
    """The unit with its inner networks, where folds cross-fit."""
    if not folds.cross_fitted:
        return unit
    return with_parts(unit, folds.parts(unit.number))


def with_parts(unit: Unit, part: np.ndarray) -> Unit:
    """The unit with one inner network for each value of `part` `[N]` (-1: none) among its training rows."""
    parts = []
    for number in np.unique(part[unit.train & (part >= 0)]):
        left_out = part == number
        name = f"{unit.name}/inner-{number}"
        parts.append(
            Unit(name, unit.number, unit.train & ~left_out, unit.train & left_out, unit.score, part=int(number), test=False)
        )
    inner = unit.train & (part >= 0)
    return replace(unit, inner=inner, parts=tuple(parts))
