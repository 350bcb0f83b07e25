"""Folds as a table: which fold scores a patch, and which patches are its inner slides; and a unit, one network to train."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.errors import LeakError, UserError
from pcam_ssl.tables import FOLD_COLUMNS, conform, read_table, write_table

GROUPINGS = ("slides", "stain clusters", "none")


@dataclass(frozen=True)
class Folds:
    """Folds of the labelled patches, one row each, in dataset row order.

    `frame` holds `id`, `wsi`, `group` (what is kept whole: slide, stain cluster, or the patch itself), `fold` (the fold that
    scores the row; -1 = never scored), `visible` (False: the label is hidden, and serves scoring only), and a bool column
    `inner_K` per fold. `notes` are sentences the user must see. `inner_share` is what was asked for; None where the file does not say.
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
        """The cv.scheme that makes such folds: official has one, random has groups of one patch."""
        if self.n_folds == 1:
            return "official"
        return "random" if self.grouping == "none" else "grouped"

    @property
    def learnable(self) -> np.ndarray:
        """Rows [N] that at least one fold may learn from: all but, under the official scheme, the valid split."""
        return np.any([~self.score_mask(fold) for fold in range(self.n_folds)], axis=0)

    @property
    def label_budget(self) -> int | None:
        """How many labels may be learned from; None where none is hidden."""
        shown = self.frame["visible"].to_numpy()[self.learnable]
        return None if shown.all() else int(shown.sum())

    def pool_mask(self, fold: int) -> np.ndarray:
        """Rows [N] that fold `fold` may learn from with or without a label: neither scored by it nor inner."""
        return ~self.score_mask(fold) & ~self.frame[f"inner_{fold}"].to_numpy()

    def train_mask(self, fold: int) -> np.ndarray:
        """Rows [N] whose labels train fold `fold`."""
        return self.pool_mask(fold) & self.frame["visible"].to_numpy()

    def inner_mask(self, fold: int) -> np.ndarray:
        """Rows [N] of the inner slides whose labels serve checkpoint choice, calibration, and thresholds of fold `fold`."""
        return self.frame[f"inner_{fold}"].to_numpy() & self.frame["visible"].to_numpy()

    def score_mask(self, fold: int) -> np.ndarray:
        """Rows [N] that fold `fold` scores and never learns from."""
        return (self.frame["fold"] == fold).to_numpy(dtype=bool)


def labelled_rows(patches: pd.DataFrame) -> pd.DataFrame:
    """The patches that folds are made of: known label, split `train` or `valid`, in dataset row order."""
    usable = patches["label"].notna() & patches["split"].isin(["train", "valid"])
    return patches[usable].sort_values("row").reset_index(drop=True)


def score_groups(folds: Folds, oof: pd.DataFrame) -> tuple[pd.Series | None, str]:
    """What the bootstrap resamples: slides where known, else proxy groups, else patches."""
    if oof.wsi.notna().all():
        return oof.wsi, "slide"
    if folds.grouping == "stain clusters":
        return folds.frame.set_index("id").group.loc[oof.id].reset_index(drop=True), "stain cluster"
    return None, "patch"


def stored_groups(path: Path | str, table: pd.DataFrame) -> pd.Series | None:
    """As `score_groups`, from a run's folds.parquet alone, for where its dataset is not at hand; slides that are known need no file."""
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


def write_folds(folds: Folds, path: Path | str, metadata: dict[str, str] | None = None) -> None:
    """Write the folds as parquet; grouping, notes and the inner share in the file's metadata."""
    told = {"grouping": folds.grouping, "notes": json.dumps(folds.notes)}
    told |= {} if folds.inner_share is None else {"inner_share": repr(folds.inner_share)}
    write_table(path, folds.frame, {**(metadata or {}), **told})


def read_folds(path: Path | str, patches: pd.DataFrame) -> Folds:
    """Read the folds of the dataset with these `patches`.

    Raises UserError where the file is no folds table or was made for other patches or slides, LeakError where a group is torn.
    """
    frame, metadata = read_table(path)
    inner = [name for name in frame.columns if str(name).startswith("inner_")]
    known = inner and sorted(inner) == sorted(f"inner_{k}" for k in range(len(inner)))
    try:
        notes, share = json.loads(metadata["notes"]), metadata.get("inner_share")
        share = None if share is None else float(share)
    except (KeyError, ValueError):
        known = False
    if metadata.get("grouping") not in GROUPINGS or not known:
        raise UserError(f"{path}: not a folds table; name the folds.parquet of a run")
    try:
        frame = conform(frame, {**FOLD_COLUMNS, **dict.fromkeys(inner, "bool")})
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
    """One network to train. The masks `[N]` are over the rows of the folds: what trains, what serves choices, what is scored."""

    name: str
    number: int
    train: np.ndarray
    inner: np.ndarray
    score: np.ndarray
    round: int = 0
    pseudo: pd.DataFrame | None = None
    """Pseudo-labelled patches that train it too: `id`, `label`, `weight`."""
    test: bool = True
    """Whether it predicts the test split."""


def fold_unit(folds: Folds, k: int) -> Unit:
    """Fold `k`."""
    return Unit(f"fold-{k}", k, folds.train_mask(k), folds.inner_mask(k), folds.score_mask(k))


def refit_unit(folds: Folds) -> Unit:
    """All visible labels that some fold learns from, but the inner slides of fold 0, which calibrate it; it scores nothing.

    Under the official scheme the labels of the valid split are none of its business, nor do they count against the budget.
    """
    train = folds.learnable & folds.frame["visible"].to_numpy() & ~folds.frame["inner_0"].to_numpy()
    return Unit(REFIT, folds.n_folds, train, folds.inner_mask(0), np.zeros(len(train), bool))
