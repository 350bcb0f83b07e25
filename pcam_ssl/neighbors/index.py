"""An embedding index: unit vectors that FAISS searches by inner product, which is cosine (Douze et al. 2024, arXiv:2401.08281).

The exact index (factory `Flat`, the default) stores its vectors slide by slide, so that excluding a slide means excluding one range.
A place is a position in the FAISS index; a row is a position in the table and the embeddings. Other modules use rows. On disk an
index is a folder: index.faiss, ids.parquet (in the same order), index.json. An index of another dataset or network is not loaded.
"""

import os
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import part_of, read_json, write_json
from pcam_ssl.neighbors.faiss_index import (
    Backend,
    choose_backend,
    default_parameters,
    flat_index,
    set_parameters,
    to_gpu,
    trained_index,
    vectors_of,
)
from pcam_ssl.neighbors.gallery_table import GalleryTable
from pcam_ssl.tables import conform, read_table, write_table

EXACT = "Flat"
COLUMNS = {"id": "str", "label": "Int8", "wsi": "str", "split": "str", "prob": "float64", "view_hash": "str"}
"""Columns of the table of patches. All but `id` may be missing values. `prob` is of class 1."""


@dataclass(frozen=True)
class Notes:
    """The content of index.json."""

    factory: str
    parameters: dict[str, int]
    dimension: int
    count: int
    dataset_digest: str | None
    network_digest: str | None
    backend: str
    faiss_version: str
    created: str
    metric: str = "cosine (inner product of unit vectors)"


@dataclass(frozen=True)
class EmbeddingIndex(GalleryTable):
    """N unit vectors of D values, searchable by `neighbors.search`."""

    faiss_index: faiss.Index
    """The index that is saved, on the CPU with every backend."""
    order: np.ndarray
    """int64 [N]: the row of each place of the FAISS index."""
    table: pd.DataFrame
    """`COLUMNS`, by row."""
    notes: Notes
    backend: Backend
    resources: object = None
    gpu_index: object = None

    @property
    def exact(self) -> bool:
        """Whether a search compares every vector and so finds the true neighbours."""
        return self.notes.factory == EXACT

    @property
    def facts(self) -> dict[str, Any]:
        """`index` and `backend` as JSON values: what a search says of where it searched."""
        notes = self.notes
        index = {"factory": notes.factory, "parameters": notes.parameters, "exact": self.exact, "created": notes.created}
        return {"index": index, "backend": {"name": self.backend.name, "reason": self.backend.reason}}

    @property
    def searched(self):
        """The FAISS index that is searched; on the GPU where that is the backend."""
        return self.faiss_index if self.gpu_index is None else self.gpu_index

    @cached_property
    def vectors(self) -> np.ndarray:
        """Unit vectors float32 [N, D] in order of place. This is the memory of the exact index, not a copy."""
        return vectors_of(self.faiss_index)

    @cached_property
    def places(self) -> np.ndarray:
        """int64 [N]: the place of each row."""
        places = np.empty_like(self.order)
        places[self.order] = np.arange(len(self.order))
        return places

    @cached_property
    def slide_ranges(self) -> np.ndarray:
        """int64 [S, 2]: first place of each slide, and first place after it. Exact index only."""
        codes = self.slide_codes[self.order]
        codes = np.where(codes < 0, len(self.slides), codes)
        return np.searchsorted(codes, np.stack([np.arange(len(self.slides)), np.arange(1, len(self.slides) + 1)], axis=1))


def build_index(
    embeddings,
    table: pd.DataFrame,
    *,
    factory: str = EXACT,
    parameters: dict[str, int] | None = None,
    backend: Backend | None = None,
    dataset_digest: str | None = None,
    network_digest: str | None = None,
    seed: int = 0,
) -> EmbeddingIndex:
    """An index of embeddings [N, D] (array or memory map, read in chunks); `table` describes each row (`COLUMNS`, as far as known).

    `factory` is any FAISS factory string; an index that needs training is trained on a seeded sample of the rows. `parameters` are
    FAISS search parameters such as `{"nprobe": 32}`; by default nprobe is the square root of the number of cells and efSearch is 64.
    The exact index takes N * D * 4 bytes and makes no second copy. `backend` defaults to the CPU.
    Raises UserError for an empty table, zero or non-finite embeddings, an unknown factory, and fewer rows than training needs.
    """
    backend = backend or choose_backend("cpu")
    table = conform(table.reindex(columns=list(COLUMNS)), COLUMNS)
    if not len(table):
        raise UserError("the gallery is empty: no patch to search; choose a split that has patches")
    if factory == EXACT:
        order = np.argsort(pd.factorize(table["wsi"])[0].astype(np.uint64), kind="stable")  # -1, unknown, wraps to the end
        index = flat_index(embeddings, table["id"], order)
        parameters = {}
    else:
        order = np.arange(len(table))
        index = trained_index(embeddings, table["id"], factory, seed)
        parameters = parameters or default_parameters(index)
        set_parameters(index, parameters)
    notes = Notes(
        factory=factory,
        parameters=parameters,
        dimension=index.d,
        count=index.ntotal,
        dataset_digest=dataset_digest,
        network_digest=network_digest,
        backend=backend.name,
        faiss_version=faiss.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return on_backend(index, order, table, notes, backend)


def on_backend(index, order: np.ndarray, table: pd.DataFrame, notes: Notes, backend: Backend) -> EmbeddingIndex:
    """An EmbeddingIndex of these parts, with a copy of the FAISS index on the GPU where that is the backend."""
    resources, gpu_index = to_gpu(index) if backend.name == "gpu" else (None, None)
    return EmbeddingIndex(index, order, table, notes, backend, resources, gpu_index)


FAISS_FILE, IDS_FILE, NOTES_FILE = "index.faiss", "ids.parquet", "index.json"
NOTES = {"factory": str, "parameters": {str: int}, "dimension": int, "count": int}


def save_index(index: EmbeddingIndex, folder: Path | str) -> None:
    """Write the index to a folder, completely or not at all; an existing index is replaced.

    ids.parquet lists the patches in the order of index.faiss; its column `row` is the row of the embeddings.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = (part_of(folder, suffix) for suffix in ("part", "old"))
    part.mkdir()
    try:
        faiss.write_index(index.faiss_index, str(part / FAISS_FILE))
        write_table(part / IDS_FILE, index.table.assign(row=np.arange(len(index))).iloc[index.order].reset_index(drop=True))
        write_json(part / NOTES_FILE, asdict(index.notes))
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def load_index(
    folder: Path | str,
    *,
    rebuild: str,
    dataset_digest: str | None = None,
    network_digest: str | None = None,
    backend: Backend | None = None,
) -> EmbeddingIndex:
    """The index saved in `folder`, to be searched on `backend` (the CPU where None).

    Raises UserError where it is absent, damaged, or has other digests than those given (None is not checked). The error names
    `rebuild`, the command that builds the index again.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"{folder}: no such index; build it with `{rebuild}`")
    try:
        notes = Notes(**read_json(folder / NOTES_FILE, NOTES))
    except (UserError, TypeError):
        raise _damaged(folder, f"{NOTES_FILE} is absent or unreadable", rebuild) from None
    for kind, wanted, found in (
        ("dataset", dataset_digest, notes.dataset_digest),
        ("network", network_digest, notes.network_digest),
    ):
        if wanted is not None and wanted != found:
            raise UserError(
                f"{folder}: the index is of another {kind} (digest {_short(found)}, not {_short(wanted)}); rebuild it with `{rebuild}`"
            )
    return _read(folder, notes, rebuild, backend or choose_backend("cpu", notes.factory))


def _read(folder: Path, notes: Notes, rebuild: str, backend: Backend) -> EmbeddingIndex:
    try:
        index = faiss.read_index(str(folder / FAISS_FILE))
        listed = read_table(folder / IDS_FILE)[0]
        order, table = listed["row"].to_numpy(), conform(listed.sort_values("row"), COLUMNS)
    except (RuntimeError, UserError, ValueError, KeyError) as error:
        raise _damaged(folder, first_line(error).rpartition(": ")[2], rebuild) from None
    if not (index.ntotal == len(order) == notes.count and index.d == notes.dimension):
        found = f"{index.ntotal:,} vectors, {len(order):,} ids, {notes.count:,} in {NOTES_FILE}"
        raise _damaged(folder, f"its files disagree: {found}", rebuild)
    set_parameters(index, notes.parameters)
    return on_backend(index, order, table, notes, backend)


def _damaged(folder: Path, reason: str, rebuild: str) -> UserError:
    return UserError(f"{folder}: the index is damaged ({reason}); rebuild it with `{rebuild}`")


def _short(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]
