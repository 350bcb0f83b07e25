"""Unit vectors, and FAISS indexes of them (Douze et al. 2024, arXiv:2401.08281): exact, or by factory string; on CPU or GPU, chosen once and recorded."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from pcam_ssl.errors import UserError, first_line

CHUNK = 2**14
NAMED = 3


def row_lengths(embeddings, ids=None) -> np.ndarray:
    """Euclidean length of each row, float64 [N], of embeddings [N, D] (an array or a memory map, any float type).

    Raises UserError naming the first ids (rows where `ids` is None) whose embedding is NaN, infinite, or all zeros. Such embeddings
    have no cosine.
    """
    lengths = np.empty(len(embeddings))
    for start in range(0, len(embeddings), CHUNK):
        chunk = np.asarray(embeddings[start : start + CHUNK], dtype=np.float64)
        lengths[start : start + CHUNK] = np.sqrt((chunk * chunk).sum(axis=1))
    problems = []
    for broken, what, fix in (
        (~np.isfinite(lengths), "NaN or infinite", "the network diverged on them: embed again with a sound network, or drop them"),
        (lengths == 0, "all zeros", "zeros have no direction: embed these patches again, or drop them"),
    ):
        if broken.any():
            first = np.flatnonzero(broken)[:NAMED]
            names = ", ".join(str(row) if ids is None else str(ids[row]) for row in first)
            problems.append(f"{broken.sum():,} of {len(lengths):,} embeddings are {what}, first of {_kind(ids)} {names}; {fix}")
    if problems:
        raise UserError(*problems)
    return lengths


def _kind(ids) -> str:
    return "row" if ids is None else "id"


def unit_rows(embeddings, ids=None, out: np.ndarray | None = None, places: np.ndarray | None = None) -> np.ndarray:
    """The rows divided by their length, float32 [N, D], written into `out` where given (row i at `places[i]`).

    Raises the UserErrors of `row_lengths`.
    """
    lengths = row_lengths(embeddings, ids)
    out = np.empty(embeddings.shape, dtype=np.float32) if out is None else out
    for start, chunk in unit_chunks(embeddings, lengths):
        target = slice(start, start + len(chunk)) if places is None else places[start : start + len(chunk)]
        out[target] = chunk
    return out


def unit_chunks(embeddings, lengths: np.ndarray):
    """Yield (first row, unit rows float32 [n, D]) over the whole of `embeddings`."""
    for start in range(0, len(embeddings), CHUNK):
        chunk = np.asarray(embeddings[start : start + CHUNK], dtype=np.float64)
        yield start, (chunk / lengths[start : start + len(chunk), None]).astype(np.float32)


TRAINING_ROWS = 2**18
TRAINING_ROWS_PER_CELL = 64


def flat_index(embeddings, ids, order: np.ndarray):
    """The exact FAISS index of the unit rows of embeddings [N, D], row `order[i]` at place i. Raises UserError for bad rows."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    n, dimension = embeddings.shape
    index = faiss.IndexFlatIP(dimension)
    # IndexFlat.add doubles its memory as it grows and needs rows in slide order, so the memory is allocated first and filled in place.
    index.codes.resize(n * dimension * 4)
    index.ntotal = n
    unit_rows(embeddings, ids, out=vectors_of(index), places=places)
    return index


class _FlatMemory:
    """NumPy's array interface to the memory of a flat FAISS index. The array holds this object, which keeps the index alive."""

    def __init__(self, flat_index):
        self.flat_index = flat_index
        shape = flat_index.ntotal, flat_index.d
        self.__array_interface__ = {"shape": shape, "typestr": "<f4", "data": (int(flat_index.get_xb()), False), "version": 3}


def vectors_of(flat_index) -> np.ndarray:
    """The vectors of a flat FAISS index, float32 [N, D], without copying them."""
    return np.asarray(_FlatMemory(flat_index))


def trained_index(embeddings, ids, factory: str, seed: int):
    """A FAISS index of the unit rows of embeddings [N, D], trained on a seeded sample of the rows where it needs training.

    Raises UserError for a string that FAISS cannot parse, and for fewer rows than training needs.
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
            f"--index {factory}: cannot be trained on {n:,} patches ({_reason(error)}); take fewer cells, or the exact index Flat"
        ) from None
    return index


def untrained_index(dimension: int, factory: str):
    """An empty FAISS index of a factory string. Raises UserError for one that FAISS cannot parse."""
    try:
        return faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"--index {factory!r} is no factory string that FAISS takes for {dimension} values ({_reason(error)}); try Flat, HNSW32, IVF1024,Flat"
        ) from None


def _reason(error: RuntimeError) -> str:
    """FAISS's message without its source file and condition."""
    return first_line(error).rpartition(": ")[2].strip()


def default_parameters(index) -> dict[str, int]:
    """Search parameters with high recall; FAISS's own defaults (one cell, 16 candidates) favour speed."""
    cells = cell_count(index)
    if cells:
        return {"nprobe": int(np.ceil(np.sqrt(cells)))}
    return {"efSearch": 64} if isinstance(faiss.downcast_index(index), faiss.IndexHNSW) else {}


def set_parameters(index, parameters: dict[str, int]) -> None:
    """Set FAISS search parameters by name. Raises UserError for a parameter that the index does not have."""
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


ON_GPU = re.compile(r"Flat|((PCA|PCAR|OPQ)\d+(_\d+)?,)?IVF\d+,(Flat|PQ\d+(x8)?|SQ(8|fp16))")
"""Factory strings of the indexes that FAISS implements in CUDA."""
GPU_NEIGHBORS = 2048
"""The most neighbours that FAISS selects on a GPU."""
SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class Backend:
    """`name` is cpu or gpu; `reason` says in a few words why it was chosen."""

    name: str
    reason: str


def choose_backend(choice: str = "auto", factory: str = "Flat") -> Backend:
    """The backend for an index of `factory`. `auto` takes a GPU where FAISS sees one and supports such an index on it.

    Raises UserError for another choice, and for `gpu` where it is not possible.
    """
    if choice not in ("auto", "cpu", "gpu"):
        raise UserError(f"backend {choice!r} is unknown; choose auto, cpu, or gpu")
    if choice == "cpu":
        return Backend("cpu", f"FAISS {faiss.__version__}, asked for")
    obstacle = _gpu_obstacle(factory)
    if not obstacle:
        return Backend("gpu", f"FAISS {faiss.__version__}, {faiss.get_num_gpus()} GPUs seen")
    if choice == "gpu":
        raise UserError(f"backend gpu: {obstacle}; choose backend cpu, and see `pcam-ssl doctor`")
    return Backend("cpu", f"FAISS {faiss.__version__}, {obstacle}")


def _gpu_obstacle(factory: str) -> str | None:
    if not hasattr(faiss, "StandardGpuResources"):
        return "this build of FAISS has no GPU part"
    if not faiss.get_num_gpus():
        return "FAISS sees no GPU"
    return None if ON_GPU.fullmatch(factory) else f"FAISS cannot search {factory} on a GPU"


def to_gpu(cpu_index):
    """(resources, copy of the FAISS index on the first GPU); the resources must live as long as the copy. Raises UserError."""
    resources = faiss.StandardGpuResources()
    try:
        return resources, faiss.index_cpu_to_gpu(resources, 0, cpu_index)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise _too_small("gpu") from None


def in_chunks(search: Callable[[int, int], tuple], n: int, chunk: int, backend: str) -> tuple[np.ndarray, ...]:
    """The arrays of `search(start, stop)` over 0..n, concatenated. The chunk is halved where memory runs out.

    Raises UserError where even a chunk of `SMALLEST_CHUNK` does not fit.
    """
    parts, start = [], 0
    while start < n or not parts:
        try:
            parts.append(search(start, min(n, start + chunk)))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            chunk = min(chunk, n - start) // 2
            if chunk < SMALLEST_CHUNK:
                raise _too_small(backend) from None
            continue
        start += chunk
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def out_of_memory(error: Exception) -> bool:
    """Whether FAISS ran out of memory. It raises a plain RuntimeError, so only the text tells."""
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|alloc fail|cudaMalloc|bad_alloc", str(error)))


def _too_small(backend: str) -> UserError:
    other = " choose backend cpu, or" if backend == "gpu" else ""
    return UserError(f"search: the {backend} ran out of memory;{other} take a compressed index such as `--index IVF1024,PQ32`")
