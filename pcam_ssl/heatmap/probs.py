"""Probs of the patches of slides, only by networks that were not trained on the slide."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.blending.predict import predict_source
from pcam_ssl.data.dataset import Dataset, find_dataset
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError
from pcam_ssl.runs.run import BLEND, ROUNDS, ROUNDS_FILE, Run
from pcam_ssl.tables import read_predictions

COPIES = 0.1
"""A slide counts as one of the run, whatever its name, where this share of its patches has the pixels of that slide's patches."""
STATISTICS = ("brightness", "stain_h", "stain_e", "od_r", "od_g", "od_b", "pixel_hash", "view_hash")


@dataclass(frozen=True)
class Witness:
    """Which networks may speak on a slide: that of `fold`, or with None the mean of all folds; `problem` says why none may."""

    fold: int | None
    words: str
    problem: str = ""


def run_dataset(run: Run, data: Path | None = None) -> Dataset | None:
    """The dataset of the run, None where it is gone. With `data` given, raises UserError where that is not it."""
    info = run.info()
    try:
        return find_dataset(run.path, info["dataset"], info["dataset_digest"], data)
    except UserError:
        if data is not None:
            raise
        return None


def witnesses(run: Run, learned: Dataset | None, dataset: Dataset, slides: list[str]) -> dict[str, Witness]:
    """For each of the `slides` of `dataset`, who may speak on it. `learned` is the dataset of the run, None where it is gone.

    A slide is one of the run's by its name, or by copies of its patches. Where all its patches lie in one fold, that fold's network
    never saw it. Where they lie in several folds (`cv.scheme: random`), or in none although they have labels (`official`), every
    network was trained on it. Raises UserError where no fold is finished.
    """
    frame, info = run.folds, run.info()
    # A blend has no folders of folds; its members are finished.
    everywhere = info["command"] == BLEND or run.paths.oof.exists()
    finished = {int(fold) for fold in frame.fold.unique() if everywhere or run.fold_done(int(fold))}
    if not finished:
        raise UserError(f"{run.path}: no fold is finished yet; run its command again, it continues where it stopped")
    folds_of = frame[frame.wsi.notna()].groupby("wsi").fold.agg(lambda folds: sorted(set(map(int, folds)))).to_dict()
    pooled = info["command"] == ROUNDS and run.recipe.pseudo.pooled
    pool = set() if learned is None or not info.get("learned_from_pool", False) else set(learned.patches.wsi.dropna())
    twins = {} if learned is None or learned.digest == dataset.digest else _twins(learned, dataset, slides)
    found = {}
    for slide in slides:
        names = {slide, *twins.get(slide, ())}
        folds = sorted({fold for name in names for fold in folds_of.get(name, ())})
        also = f" ({', '.join(sorted(names - {slide}))} under another name)" if names - {slide} else ""
        found[slide] = _witness(slide, folds, pooled, bool(names & pool), also)
        if not found[slide].problem and found[slide].fold not in {None, *finished}:
            absent = f"fold {folds[0]}, the only one that never saw it, is not finished; run the command of {run.path} again"
            found[slide] = Witness(None, "", f"slide {slide}{also}: {absent}")
    return found


def _witness(slide: str, folds: list[int], pooled: bool, in_pool: bool, also: str) -> Witness:
    if not folds:
        pool = ", but they learned from its patches without labels" if in_pool else ""
        return Witness(None, f"mean of all finished folds: none was trained on this slide{also}{pool}")
    if pooled:
        return Witness(
            None, "", f"slide {slide}{also}: its pseudo-labels are pooled over folds, so every network was trained on it"
        )
    if len(folds) > 1 or folds[0] < 0:
        return Witness(
            None,
            "",
            f"slide {slide}{also}: every network of the run was trained on it; name a run of grouped folds, or a new slide",
        )
    return Witness(folds[0], f"out of fold: fold {folds[0]} never saw this slide{also}")


def _twins(learned: Dataset, dataset: Dataset, slides: list[str]) -> dict[str, set[str]]:
    """Slides of the run's dataset, by slide of `dataset`, that hold copies of at least `COPIES` of its patches."""
    known = learned.patches[["pixel_hash", "wsi"]].dropna().drop_duplicates()
    asked = dataset.patches[dataset.patches.wsi.isin(slides)]
    both = asked[["id", "wsi", "pixel_hash"]].merge(known, on="pixel_hash", suffixes=("", "_known"))
    copies = both.groupby(["wsi", "wsi_known"]).id.nunique()
    sizes = asked.groupby("wsi").size()
    found: dict[str, set[str]] = {}
    for (slide, name), count in copies.items():
        if count >= COPIES * sizes[slide]:
            found.setdefault(slide, set()).add(name)
    return found


def slide_probs(run: Run, dataset: Dataset, patches: pd.DataFrame, speak: dict[str, Witness], device: str) -> np.ndarray:
    """Probs of tumor float64 [N] of `patches` of `dataset`, each by who may speak on its slide.

    What the run has written is taken (`oof.parquet`, and the mean of folds in `test.parquet`); the rest is predicted.
    """
    fold = patches.wsi.map({slide: -1 if each.fold is None else each.fold for slide, each in speak.items()}).to_numpy(np.int64)
    probs = np.full(len(patches), np.nan)
    own = dataset.digest == run.info()["dataset_digest"]
    if own:
        written = [path for path in (run.paths.oof, run.paths.test) if path.exists()]
        for path in written:
            _fill(probs, patches.id, fold, read_predictions(path))
    absent = np.isnan(probs)
    if not absent.any():
        return probs
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as scratch:
        rest = patches[absent]
        # Not the run's own dataset as a whole: `predict` would warn of scores that are too good, which are not taken.
        source = dataset.path if len(rest) == len(dataset) and not own else _part(dataset, rest, Path(scratch) / "patches")
        table = Path(scratch) / "predictions.parquet"
        # The run in use is chosen already.
        number = 0 if (run.path / ROUNDS_FILE).exists() else None
        predict_source(run.path, source, table, device=device, round=number)
        _fill(probs, patches.id, fold, read_predictions(table))
    return probs


def _fill(probs: np.ndarray, ids: pd.Series, fold: np.ndarray, table: pd.DataFrame) -> None:
    """Set the probs that are still NaN from the rows of Predictions of the same id and fold."""
    keys = pd.MultiIndex.from_arrays([ids.astype(str), fold])
    found = table.assign(fold=table.fold.astype("int64")).set_index(["id", "fold"]).prob.reindex(keys).to_numpy()
    np.copyto(probs, found, where=np.isnan(probs))


def _part(dataset: Dataset, patches: pd.DataFrame, path: Path) -> Path:
    """A dataset of some patches of another, without labels, so that no time goes into scores of them."""
    with DatasetWriter(path, dataset.size_px, source=str(dataset.path), source_format="memory", expected=len(patches)) as writer:
        for start in range(0, len(patches), 1024):
            part = patches.iloc[start : start + 1024]
            pixels = np.ascontiguousarray(dataset.pixels[part.row.to_numpy()])
            statistics = {name: part[name].to_numpy() for name in STATISTICS}
            writer.append(pixels, part.id.array, part.split.array, wsi=part.wsi.array, statistics=statistics)
    return path
