"""The gallery to search: the dataset of a run, embedded by its refit network, or a folder of `pcam-ssl embed`.

Its index is built on first use and kept in the folder. An index of another network or dataset is refused.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS, Dataset, find_dataset
from pcam_ssl.data.folds import REFIT
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import read_json
from pcam_ssl.neighbors.faiss_index import Backend, choose_backend, untrained_index
from pcam_ssl.neighbors.index import COLUMNS, EXACT, NOTES_FILE, EmbeddingIndex, build_index, load_index, save_index
from pcam_ssl.records import read_embedding
from pcam_ssl.runs.contents import predictions_by_id
from pcam_ssl.runs.embedder import Embedder, frozen_embedder, run_embedder, unit_digest
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.runs.run import Run, run_in_use
from pcam_ssl.runs.shared_work import kept_work
from pcam_ssl.search.embed import EMBEDDINGS, FACTS, ID_COLUMNS, IDS
from pcam_ssl.tables import read_table
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class EmbeddingSpace:
    """A gallery before it is indexed; its index is in `folder`/index."""

    folder: Path
    dataset: Dataset
    network_digest: str
    gallery: pd.DataFrame
    """`id`, `label`, `wsi`, `split`, `view_hash`, and `prob` of class 1 (calibrated) where the run has one."""
    embeddings: np.ndarray | None
    """Float [N, D] in the order of `gallery`, memory-mapped; None where they are not computed yet."""
    embedder: Callable[[], Embedder]

    @property
    def index_folder(self) -> Path:
        return self.folder / "index"


def open_gallery(
    space: EmbeddingSpace, embedder: Embedder, factory: str | None = None, rebuild: bool = False, backend: str = "auto"
) -> EmbeddingIndex | None:
    """The EmbeddingIndex of the gallery; it is built and saved where there is none, or with `rebuild`. Processes share the embedding, and
    one of them gets the index; the others get None.

    `factory` None takes the saved index, or builds the exact one. Raises UserError for an index of another factory, network or
    dataset, with the command that rebuilds it.
    """
    world = embedder.world
    if world.run_on_main(lambda: rebuild or not space.index_folder.exists()):
        with ExitStack() as lock:
            world.run_on_main(lambda: lock.enter_context(lock_file(space.folder / ".index.lock", str(space.index_folder))) and None)
            _build(space, embedder, factory or EXACT, backend)
    opened: list[EmbeddingIndex] = []
    world.run_on_main(lambda: opened.append(_load_index(space, factory, backend)))
    return opened[0] if opened else None


def _load_index(space: EmbeddingSpace, factory: str | None, backend: str) -> EmbeddingIndex:
    saved, command = _saved_factory(space.index_folder), _rebuild_command(space, factory)
    if factory is not None and saved not in (None, factory):
        raise UserError(
            f"{space.index_folder}: its factory is {saved}, not {factory}; leave --index out, or rebuild it with `{command}`"
        )
    chosen = choose_backend(backend, saved or EXACT)
    _report_index(space, saved or EXACT, chosen)
    return load_index(
        space.index_folder,
        rebuild=command,
        dataset_digest=space.dataset.digest,
        network_digest=space.network_digest,
        backend=chosen,
    )


def _build(space: EmbeddingSpace, embedder: Embedder, factory: str, backend: str) -> None:
    # Refuse the factory string and the backend before the slow embedding pass.
    embedder.world.run_on_all(lambda: untrained_index(embedder.dimension, factory))
    chosen = embedder.world.run_on_all(lambda: choose_backend(backend, factory))
    described = {"dataset_digest": space.dataset.digest, "network_digest": space.network_digest}
    with _embeddings(space, embedder) as embeddings:
        embedder.world.run_on_main(
            lambda: save_index(
                build_index(embeddings, space.gallery, factory=factory, backend=chosen, **described), space.index_folder
            )
        )


@contextmanager
def _embeddings(space: EmbeddingSpace, embedder: Embedder) -> Iterator[np.ndarray]:
    """Yield the embeddings of the space, or new ones on disk, so that only the index takes memory. Processes share the work."""
    if space.embeddings is not None:
        yield space.embeddings
        return
    identity = {"network": space.network_digest, "dataset": space.dataset.digest, **embedder.computes}
    with kept_work(space.index_folder, str(space.index_folder), identity, embedder.world) as work:
        say(f"{space.index_folder}: embedding {len(space.gallery):,} patches, once")
        yield embedder.fill(
            Pixels(space.dataset.path / PIXELS), space.gallery.row.to_numpy(), work / "embeddings.npy", space.folder
        )


def _report_index(space: EmbeddingSpace, factory: str, backend: Backend) -> None:
    say(f"search: {len(space.gallery):,} patches, index {factory}, backend {backend.name} ({backend.reason})")


def _saved_factory(folder: Path) -> str | None:
    """The factory of a saved index; None where its notes cannot be read, which `load_index` reports."""
    try:
        return read_json(folder / NOTES_FILE, {"factory": str})["factory"]
    except UserError:
        return None


def _rebuild_command(space: EmbeddingSpace, factory: str | None) -> str:
    return shlex.join(["pcam-ssl", "search", str(space.folder), *(["--index", factory] if factory else []), "--rebuild"])


AGAIN = "delete the folder, and embed again with `pcam-ssl embed`"


def open_embedding_space(folder: Path | str, data: Path | str | None = None, device: str | World = "auto") -> EmbeddingSpace:
    """The gallery of a run or of an embeddings folder. `data` is the new place of its dataset, where that has moved; `device`: where it is
    embedded, or the World that shares it.

    Raises UserError where the folder is neither, has no refit network, or its dataset is missing or has changed.
    """
    folder = Path(folder)
    return _of_embeddings(folder, data, device) if (folder / FACTS).is_file() else _of_run(run_in_use(folder), data, device)


def _of_run(run: Run, data: Path | str | None, device: str | World) -> EmbeddingSpace:
    info = run.info()
    if not run.unit_done(REFIT):
        # Raises the error that names the command to make it.
        run_embedder(run)
    if not run.paths.scores.exists():
        raise UserError(f"{run.path}: not finished yet; run its command again, it continues where it stopped")
    dataset = find_dataset(run.path, info["dataset"], info["dataset_digest"], data)
    gallery = dataset.patches.assign(prob=dataset.patches.id.map(predictions_by_id(run).prob))
    return EmbeddingSpace(run.path, dataset, unit_digest(run.path / REFIT), gallery, None, lambda: run_embedder(run, device=device))


def _of_embeddings(folder: Path, data: Path | str | None, device: str | World) -> EmbeddingSpace:
    facts = read_embedding(folder)
    described, network = facts["dataset"], facts["network"]
    if not described["packed"] and data is None:
        raise UserError(
            f"{folder}: made from {described['path']}, whose patches are not kept; "
            f"`pcam-ssl data import {shlex.quote(described['path'])} DATASET`, then search with --data DATASET"
        )
    dataset = find_dataset(folder, described["path"], described["digest"], data)

    def embedder() -> Embedder:
        made = _rebuild_embedder(network, dataset, device)
        if made.digest != network["digest"]:
            raise UserError(f"{folder}: its network has changed since; embed again with `pcam-ssl embed`")
        return made

    embeddings = _load(folder)
    gallery = read_table(folder / IDS, {name: COLUMNS[name] for name in ID_COLUMNS})[0].assign(prob=float("nan"))
    if len(gallery) != len(embeddings):
        raise UserError(f"{folder}: damaged ({len(embeddings):,} embeddings of {len(gallery):,} patches); {AGAIN}")
    return EmbeddingSpace(folder, dataset, network["digest"], gallery, embeddings, embedder)


def _load(folder: Path) -> np.ndarray:
    try:
        embeddings = np.load(folder / EMBEDDINGS, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{folder / EMBEDDINGS}: damaged ({first_line(error)}); {AGAIN}") from None
    if embeddings.ndim != 2 or embeddings.dtype not in (np.float16, np.float32):
        raise UserError(f"{folder / EMBEDDINGS}: damaged (it holds {embeddings.dtype} {list(embeddings.shape)}); {AGAIN}")
    return embeddings


def _rebuild_embedder(network: dict, dataset: Dataset, device: str | World) -> Embedder:
    if "model" in network:
        options = network["pretrained"], network["image_size"], device, network.get("weights")
        return frozen_embedder(network["model"], dataset.size_px, *options)
    fold = None if network["unit"] == REFIT else int(network["unit"].removeprefix("fold-"))
    return run_embedder(Run(Path(network["run"])), fold, device)
