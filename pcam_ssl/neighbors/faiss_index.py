"""FAISS indexes of unit rows (Douze et al. 2024, arXiv:2401.08281): the exact one, and any other by factory string. No torch."""

import faiss
import numpy as np

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.neighbors.vectors import row_lengths, unit_chunks, unit_rows

TRAINING_ROWS = 2**18
TRAINING_ROWS_PER_CELL = 64


def flat_index(embeddings, ids, order: np.ndarray):
    """The exact FAISS index of the unit rows of embeddings [N, D], row `order[i]` at place i. Raises UserError for bad rows."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    n, dimension = embeddings.shape
    index = faiss.IndexFlatIP(dimension)
    # IndexFlat.add would grow its memory by doubling, and needs the rows in slide order: make the room first, write into it.
    index.codes.resize(n * dimension * 4)
    index.ntotal = n
    unit_rows(embeddings, ids, out=vectors_of(index), places=places)
    return index


class _FlatMemory:
    """The memory of a flat FAISS index as NumPy reads it; the array keeps this, and this keeps the index alive."""

    def __init__(self, flat_index):
        self.flat_index = flat_index
        shape = flat_index.ntotal, flat_index.d
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (int(flat_index.get_xb()), False), "version": 3}


def vectors_of(flat_index) -> np.ndarray:
    """The vectors of a flat FAISS index, float32 [N, D], without copying them."""
    return np.asarray(_FlatMemory(flat_index))


def trained_index(embeddings, ids, factory: str, seed: int):
    """A FAISS index of the unit rows of embeddings [N, D], trained on a seeded sample of them where it needs training.

    Raises UserError for a string FAISS cannot parse, and for fewer rows than the training needs.
    """
    n, dimension = embeddings.shape
    index = untrained_index(dimension, factory)
    lengths = row_lengths(embeddings, ids)
    try:
        if not index.is_trained:
            enough = max(TRAINING_ROWS, TRAINING_ROWS_PER_CELL * cell_count(index))
            rows = np.sort(np.random.default_rng(seed).permutation(n)[:enough])
            index.train((np.asarray(embeddings[rows], dtype=np.float64) / lengths[rows, None]).astype(np.float32))
        for _, chunk in unit_chunks(embeddings, lengths):
            index.add(chunk)
    except RuntimeError as error:
        raise UserError(
            f"--index {factory}: cannot be trained on {n:,} patches ({_said(error)}); take fewer cells, or the exact index Flat"
        ) from None
    return index


def untrained_index(dimension: int, factory: str):
    """An empty FAISS index of a factory string. Raises UserError for one that FAISS cannot parse."""
    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"--index {factory!r} is no factory string FAISS takes for {dimension} values ({_said(error)}); try Flat, HNSW32, IVF1024,Flat"
        ) from None


def _said(error: RuntimeError) -> str:
    """The end of FAISS's message, without its source file and condition."""
    return first_line(error).rpartition(": ")[2].strip()


def default_parameters(index) -> dict[str, int]:
    """Search parameters that find most neighbours; FAISS's own defaults (one cell, 16 candidates) favour speed."""
    cells = cell_count(index)
    if cells:
        return {"nprobe": int(np.ceil(np.sqrt(cells)))}
    return {"efSearch": 64} if isinstance(faiss.downcast_index(index), faiss.IndexHNSW) else {}


def set_parameters(index, parameters: dict[str, int]) -> None:
    """Set FAISS search parameters by name. Raises UserError for one the index does not have."""
    space = faiss.GpuParameterSpace() if "Gpu" in type(index).__name__ else faiss.ParameterSpace()
    for name, value in parameters.items():
        try:
            space.set_index_parameter(index, name, value)
        except RuntimeError:
            raise UserError(f"index: {type(index).__name__} has no search parameter {name}={value}; leave it out") from None


def cell_count(index) -> int:
    """The number of cells of an inverted file (IVF), 0 where the index has none."""
    ivf = faiss.try_extract_index_ivf(index)
    return ivf.nlist if ivf is not None else 0
