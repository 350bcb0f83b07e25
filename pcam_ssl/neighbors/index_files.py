"""An embedding index as a folder: index.faiss, ids.parquet (in the same order), index.json. No torch.

Loading refuses an index of another dataset or network: its neighbours would look right and be wrong.
"""

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import read_json, write_json
from pcam_ssl.neighbors.backend import Backend, choose_backend
from pcam_ssl.neighbors.faiss_index import set_parameters
from pcam_ssl.neighbors.index import COLUMNS, EmbeddingIndex, Notes, on_backend
from pcam_ssl.tables import conform, read_table, write_table

FAISS_FILE, IDS_FILE, NOTES_FILE = "index.faiss", "ids.parquet", "index.json"
NOTES = {"factory": str, "parameters": {str: int}, "dimension": int, "count": int}


def save_index(index: EmbeddingIndex, folder: Path | str) -> None:
    """Write the folder whole or not at all; an index already there is replaced.

    ids.parquet lists the patches in the order of index.faiss; its column `row` is the row of the embeddings they came from.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{suffix}") for suffix in ("part", "old"))
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

    `rebuild` is the command that makes it anew, for the UserErrors: absent, damaged, or of another dataset or network than the
    digests given (None is not checked).
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
