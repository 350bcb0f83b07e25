"""Neighbours from an approximate index when some may not be found: search wider until enough are left. No torch."""

import numpy as np

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.backend import GPU_NEIGHBORS
from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.faiss_index import cell_count, set_parameters
from pcam_ssl.neighbors.index import EmbeddingIndex

WIDER = 4


def allowed_neighbors(gallery: EmbeddingIndex, unit: np.ndarray, k: int, exclude: Exclusion) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows that `exclude` allows, as far as the index finds them: similarity, row [Q, k].

    Queries [Q, D] that come short are searched again, four times as wide (neighbours, cells probed, candidates kept), until they
    have k or all that are allowed. Raises UserError where a GPU cannot select that many.
    """
    n, index, cells = len(gallery), gallery.searched, cell_count(gallery.faiss_index)
    found = np.full((len(unit), k), -np.inf, dtype=np.float32), np.full((len(unit), k), -1, dtype=np.int64)
    wanted = np.minimum(k, n - exclude.left_out)
    pending = np.flatnonzero(wanted > 0)
    width, factor = min(n, 2 * k + min(k, max(map(len, exclude.rows), default=0))), 1
    try:
        while len(pending):
            _check_width(gallery, width)
            set_parameters(index, _widened(gallery.notes.parameters, factor, width, n, cells))
            similarity, rows = index.search(unit[pending], width)
            short = [not _keep(found, query, similarity[i], rows[i], gallery, exclude, wanted) for i, query in enumerate(pending)]
            pending = pending[short] if width < n else pending[:0]
            width, factor = min(n, width * WIDER), factor * WIDER
    finally:
        set_parameters(index, gallery.notes.parameters)
    return found


def _keep(found, query: int, similarity, rows, gallery: EmbeddingIndex, exclude: Exclusion, wanted) -> bool:
    """Write the allowed neighbours of one query into `found`; whether they are as many as wanted."""
    allowed = rows >= 0
    if exclude.slide_codes[query] >= 0:
        allowed &= gallery.slide_codes[rows] != exclude.slide_codes[query]
    if len(exclude.rows[query]):
        allowed &= ~np.isin(rows, exclude.rows[query])
    kept = np.flatnonzero(allowed)[: found[0].shape[1]]
    found[0][query, : len(kept)], found[1][query, : len(kept)] = similarity[kept], rows[kept]
    return len(kept) >= wanted[query]


def _widened(parameters: dict[str, int], factor: int, width: int, n: int, cells: int) -> dict[str, int]:
    wider = {name: min(value * factor, n) for name, value in parameters.items()}
    if "nprobe" in wider:
        wider["nprobe"] = cells if width >= n else min(cells, wider["nprobe"])
    if "efSearch" in wider:
        wider["efSearch"] = max(wider["efSearch"], width)
    return wider


def _check_width(gallery: EmbeddingIndex, width: int) -> None:
    if gallery.backend.name == "gpu" and width > GPU_NEIGHBORS:
        raise UserError(
            f"--index {gallery.notes.factory}: more than {GPU_NEIGHBORS:,} of the nearest patches are left out, and FAISS selects "
            "no more on a GPU; take the exact index Flat, or backend cpu"
        )
