"""`pcam-ssl embed`: write the embeddings of any source into a folder, and score kNN with patches of other slides.

The folder holds embeddings.npy [N, D], ids.parquet in the same order, and embedding.json, which describes network and dataset.
"""

import os
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS, Dataset, is_dataset, split_rows
from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.importing import open_source
from pcam_ssl.data.pixels import Inputs, Pixels
from pcam_ssl.data.writer import check_space, refuse_existing
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import part_of, write_json
from pcam_ssl.models.features import cached_features
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.knn import knn_predictions
from pcam_ssl.runs.embedder import Embedder, frozen_embedder, run_embedder
from pcam_ssl.runs.run import run_in_use, versions
from pcam_ssl.tables import write_table

EMBEDDINGS, IDS, FACTS = "embeddings.npy", "ids.parquet", "embedding.json"
ID_COLUMNS = ["id", "label", "wsi", "split", "view_hash"]
FORMAT = 1


def embed_source(
    source: Path | str,
    out: Path | str,
    *,
    run: Path | str | None = None,
    fold: int | None = None,
    model: str | None = None,
    pretrained: bool = True,
    weights: Path | str | None = None,
    image_size: int | None = None,
    split: str | None = None,
    half: bool = False,
    knn: bool = False,
    device: str = "auto",
    skip_bad: bool = False,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Write the embeddings of `source` by a run's network, or by the frozen backbone `model` (with the file `weights`), into the new folder `out`.

    Embeddings are float32, or float16 with `half`; they are streamed, so memory does not grow with N. Returns the values of
    embedding.json and, with `knn`, the kNN scores of the labelled patches. Raises UserError where run, model or source cannot be used,
    or `out` exists.
    """
    refuse_existing(out, "--out")
    embedder = None if run is None else run_embedder(run_in_use(run), fold, device)
    with open_source(source, skip_bad) as dataset:
        patches = split_rows(dataset, source, split)
        if embedder is None:
            embedder = frozen_embedder(model, dataset.size_px, pretrained, image_size, device, weights)
        described = {"path": str(Path(source).resolve()), "digest": dataset.digest, "split": split, "packed": is_dataset(source)}
        facts = _facts(embedder, described, len(patches), half)
        with _new_folder(Path(out), len(patches) * embedder.dimension * np.dtype(facts["dtype"]).itemsize) as folder:
            inputs = _cached(dataset, embedder) if run is None and is_dataset(source) else Pixels(dataset.path / PIXELS)
            _write(folder, embedder, inputs, patches, facts)
        embeddings = np.load(Path(out) / EMBEDDINGS, mmap_mode="r")
        return facts, knn_scores(embeddings, patches) if knn else None


def _cached(dataset: Dataset, embedder: Embedder) -> Features:
    """The features of all patches by a frozen backbone, kept beside the dataset for the next command that wants them."""
    return cached_features(
        dataset,
        embedder.network,
        [FixedViews("none")],
        precision=embedder.precision,
        world=embedder.world,
        workers=embedder.world.loader_workers,
    )


def _facts(embedder: Embedder, dataset: dict[str, Any], n: int, half: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "network": embedder.identity,
        "dataset": dataset,
        "n": n,
        "dimension": embedder.dimension,
        "dtype": "float16" if half else "float32",
        "device": embedder.world.device.type,
        "precision": embedder.precision.to_dict(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def _write(folder: Path, embedder: Embedder, inputs: Inputs, patches: pd.DataFrame, facts: dict[str, Any]) -> None:
    shape = facts["n"], facts["dimension"]
    embeddings = np.lib.format.open_memmap(folder / EMBEDDINGS, "w+", np.dtype(facts["dtype"]), shape)
    embedder.embed(inputs, patches.row.to_numpy(), out=embeddings)
    embeddings.flush()
    notes = {"dataset_digest": facts["dataset"]["digest"], "network_digest": facts["network"]["digest"]}
    write_table(folder / IDS, patches[ID_COLUMNS].reset_index(drop=True), notes)
    write_json(folder / FACTS, facts)


@contextmanager
def _new_folder(path: Path, n_bytes: int):
    """Yield a temporary folder beside `path`; it is renamed to `path` if the block succeeds, and removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_space(path.parent, n_bytes)
    part = part_of(path)
    part.mkdir()
    try:
        yield part
        refuse_existing(path, "--out")
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


RESAMPLES = 2000


def knn_scores(embeddings, patches: pd.DataFrame) -> dict[str, Any]:
    """A score report of kNN for each split with labels; embeddings `[N, D]` are in the order of `patches`.

    The gallery is the labelled train split, or the labelled patches of all splits where the train split has no labels. Patches of the
    query's own slide are excluded; where slides are unknown, its duplicates are. k and temperature are the defaults of `neighbors.knn`.
    Raises UserError where too few patches have a label.
    """
    labelled = patches.label.notna()
    member = labelled & (patches.split == "train")
    member = member if member.any() else labelled
    if not member.any():
        raise UserError("--knn: no patch of the source has a label; embed a source with labels, or leave --knn out")
    gallery = build_index(embeddings[member.to_numpy()], patches[member])
    reports = {}
    for split in patches.split[labelled].unique():
        queries = labelled & (patches.split == split)
        rows = patches[queries].reset_index(drop=True)
        table = knn_predictions(gallery, embeddings[queries.to_numpy()], rows, 0, exclude=leave_out(gallery, rows))
        reports[split] = score_report(table, rows.wsi if rows.wsi.notna().all() else None, RESAMPLES)
    return reports
