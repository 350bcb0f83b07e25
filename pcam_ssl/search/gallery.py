"""The gallery of a space, indexed: made on first use, kept in its folder, refused when it is of another network or dataset."""

import shlex
import tempfile
from pathlib import Path

import numpy as np

from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json
from pcam_ssl.neighbors.backend import Backend, choose_backend
from pcam_ssl.neighbors.faiss_index import untrained_index
from pcam_ssl.neighbors.index import EXACT, EmbeddingIndex, build_index
from pcam_ssl.neighbors.index_files import NOTES_FILE, load_index, save_index
from pcam_ssl.runs.embedder import Embedder
from pcam_ssl.runs.run import hold
from pcam_ssl.search.space import Space
from pcam_ssl.terminal import say


def open_gallery(space: Space, embedder: Embedder, factory: str | None = None, rebuild: bool = False, backend: str = "auto"):
    """The space's EmbeddingIndex, built and saved where it is absent or `rebuild` asks for it.

    `factory` None takes what is there, or the exact index. Raises UserError for an index of another factory, network or dataset,
    with the command that rebuilds it.
    """
    if rebuild or not space.index_folder.exists():
        with hold(space.folder / ".index.lock", str(space.index_folder)):
            return _build(space, embedder, factory or EXACT, backend)
    saved, command = _saved_factory(space.index_folder), _rebuild_command(space, factory)
    if factory is not None and saved not in (None, factory):
        raise UserError(
            f"{space.index_folder}: is an index {saved}, not {factory}; leave --index out, or rebuild it with `{command}`"
        )
    chosen = choose_backend(backend, saved or EXACT)
    _tell(space, saved or EXACT, chosen)
    return load_index(
        space.index_folder,
        rebuild=command,
        dataset_digest=space.dataset.digest,
        network_digest=space.network_digest,
        backend=chosen,
    )


def _build(space: Space, embedder: Embedder, factory: str, backend: str) -> EmbeddingIndex:
    untrained_index(embedder.dimension, factory)  # so that a slip of the pen is told before minutes of embedding
    chosen = choose_backend(backend, factory)
    _tell(space, factory, chosen)
    with tempfile.TemporaryDirectory(prefix=".embedding-", dir=space.folder) as folder:
        index = build_index(
            _embeddings(space, embedder, Path(folder)),
            space.gallery,
            factory=factory,
            backend=chosen,
            dataset_digest=space.dataset.digest,
            network_digest=space.network_digest,
        )
    save_index(index, space.index_folder)
    return index


def _embeddings(space: Space, embedder: Embedder, scratch: Path) -> np.ndarray:
    """Those the space has, else new ones on disk, so that only the index itself takes memory."""
    if space.embeddings is not None:
        return space.embeddings
    say(f"{space.index_folder}: embedding {len(space.gallery):,} patches, once")
    out = np.lib.format.open_memmap(scratch / "embeddings.npy", "w+", np.float32, (len(space.gallery), embedder.dimension))
    return embedder.embed(Pixels(space.dataset.path / PIXELS), space.gallery.row.to_numpy(), out=out)


def _tell(space: Space, factory: str, backend: Backend) -> None:
    say(f"search: {len(space.gallery):,} patches, index {factory}, backend {backend.name} ({backend.reason})")


def _saved_factory(folder: Path) -> str | None:
    """The factory of a saved index, None where its notes cannot be read: `load_index` says so."""
    try:
        return read_json(folder / NOTES_FILE, {"factory": str})["factory"]
    except UserError:
        return None


def _rebuild_command(space: Space, factory: str | None) -> str:
    return shlex.join(["pcam-ssl", "search", str(space.folder), *(["--index", factory] if factory else []), "--rebuild"])
