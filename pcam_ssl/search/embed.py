"""`pcam-ssl embed`: write the embeddings of any source into a folder, and score kNN with patches of other slides.

The folder holds embeddings.npy [N, D], ids.parquet in the same order, and embedding.json, which describes network and dataset.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS, Dataset, is_dataset, split_rows
from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.writer import refuse_existing
from pcam_ssl.distributed import join_world
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import write_json
from pcam_ssl.models.features import cached_features
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.knn import knn_predictions
from pcam_ssl.runs.begin import versions
from pcam_ssl.runs.embedder import Embedder, frozen_embedder, run_embedder
from pcam_ssl.runs.run import run_in_use
from pcam_ssl.runs.shared_work import kept_work, shared_source
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

    Embeddings are float32, or float16 with `half`; they are streamed, so memory does not grow with N. Several processes (`torchrun`) share the
    patches and make one folder, the same as one process makes; an interrupted command is continued by the next one. Returns the values of
    embedding.json and, with `knn`, the kNN scores of the labelled patches. Raises UserError where run, model or source cannot be used,
    or `out` exists.
    """
    out, world = Path(out), join_world(device)
    world.run_on_main(lambda: refuse_existing(out, "--out"))
    embedder = None if run is None else world.run_on_all(lambda: run_embedder(run_in_use(run), fold, world))
    with shared_source(source, skip_bad, world) as dataset:
        patches = world.run_on_all(lambda: split_rows(dataset, source, split))
        if embedder is None:
            options = pretrained, image_size, world, weights
            embedder = world.run_on_all(lambda: frozen_embedder(model, dataset.size_px, *options))
        described = {"path": str(Path(source).resolve()), "digest": dataset.digest, "split": split, "packed": is_dataset(source)}
        facts = _facts(embedder, described, len(patches), half)
        with kept_work(out, f"--out {out}", facts, world) as work:
            inputs = _cached(dataset, embedder) if run is None and is_dataset(source) else Pixels(dataset.path / PIXELS)
            folder = work / "out"
            world.run_on_main(lambda: folder.mkdir(exist_ok=True))
            embedder.fill(inputs, patches.row.to_numpy(), folder / EMBEDDINGS, out.parent, np.dtype(facts["dtype"]))
            facts["created"] = datetime.now(UTC).isoformat(timespec="seconds")
            world.run_on_main(lambda: _finish(folder, out, patches, facts))
        if not knn:
            return facts, None
        return facts, world.run_on_main(lambda: knn_scores(np.load(out / EMBEDDINGS, mmap_mode="r"), patches))


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
        "versions": versions(),
    }


def _finish(folder: Path, out: Path, patches: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Write what describes the embeddings in `folder`, and give it its name."""
    notes = {"dataset_digest": facts["dataset"]["digest"], "network_digest": facts["network"]["digest"]}
    write_table(folder / IDS, patches[ID_COLUMNS].reset_index(drop=True), notes)
    write_json(folder / FACTS, facts)
    refuse_existing(out, "--out")
    os.rename(folder, out)


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
