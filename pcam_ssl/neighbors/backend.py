"""Where FAISS runs: chosen once, printed and recorded by the caller, never switched afterwards. No torch."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np

from pcam_ssl.errors import UserError

ON_GPU = re.compile(r"Flat|((PCA|PCAR|OPQ)\d+(_\d+)?,)?IVF\d+,(Flat|PQ\d+(x8)?|SQ(8|fp16))")
"""Factory strings that FAISS has in CUDA."""

GPU_NEIGHBORS = 2048
"""The most neighbours that FAISS selects on a GPU."""

SMALLEST_CHUNK = 16


@dataclass(frozen=True)
class Backend:
    """`name` is cpu or gpu; `reason` says in a few words why, for the terminal and the record."""

    name: str
    reason: str


def choose_backend(choice: str = "auto", factory: str = "Flat") -> Backend:
    """The backend for an index of `factory`: auto takes a GPU where FAISS sees one and can search such an index there.

    Raises UserError where `gpu` is asked for and cannot be had.
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
    """The arrays of `search(start, stop)` over 0..n, joined; where memory runs out the chunk is halved.

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
    """Whether FAISS failed for want of memory; it throws a RuntimeError whose text alone tells."""
    return isinstance(error, MemoryError) or bool(re.search(r"out of memory|alloc fail|cudaMalloc|bad_alloc", str(error)))


def _too_small(backend: str) -> UserError:
    other = " choose backend cpu, or" if backend == "gpu" else ""
    return UserError(f"search: the {backend} ran out of memory;{other} take a compressed index such as `--index IVF1024,PQ32`")
