"""What turns patches into embeddings: the network of a run, or a frozen timm backbone."""

import hashlib
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.folds import REFIT
from pcam_ssl.data.pixels import Inputs, Pixels
from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.distributed import World, alone
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file
from pcam_ssl.models.artefact import WEIGHTS, load_trained
from pcam_ssl.models.backbone import package_for
from pcam_ssl.models.filling import fill
from pcam_ssl.models.foundation import resizing
from pcam_ssl.models.inference import embed_rows, embedding_batches, rows_at_once
from pcam_ssl.models.network import Network, build_network
from pcam_ssl.models.weights import PACKAGES
from pcam_ssl.models.weights_file import load_weights_file
from pcam_ssl.runs.networks import Networks
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import progress, say, warn

FROZEN_BATCH = 128
RANDOM_SEED = 0


@dataclass(frozen=True)
class Embedder:
    """A network and its name: `identity` makes it again, and holds the digest of its weights."""

    network: Network
    precision: Precision
    world: World
    batch_size: int
    identity: dict[str, Any]

    @property
    def dimension(self) -> int:
        return self.network.embedding_size

    @property
    def digest(self) -> str:
        return self.identity["digest"]

    @property
    def computes(self) -> dict[str, str]:
        """Where and in which number format: with weights and patches, what decides the numbers."""
        return {"device": self.world.device.type, "precision": self.precision.name}

    def embed(self, pixels: Inputs, rows, label: str = "embedding", workers: int | None = None) -> np.ndarray:
        """Embeddings of unit length float32 `[n, D]` of the patches `rows`. Raises UserError where one is not finite."""
        with progress(label, len(rows)) as advance:
            return embed_rows(
                self.network,
                pixels,
                rows,
                batch_size=self.batch_size,
                precision=self.precision,
                world=self.world,
                workers=self.world.loader_workers if workers is None else workers,
                advance=advance,
            )

    def fill(
        self, pixels: Inputs, rows: np.ndarray, path: Path, place: Path, dtype: type = np.float32, label: str = "embedding"
    ) -> np.ndarray:
        """The same embeddings as the new file `path`, memory-mapped; memory does not grow with n. All processes of the world share the work, and
        what an interrupted call has done is not done again (see `models.filling`). Errors name the folder `place`."""

        def compute(numbers: Sequence[int]) -> Iterator[list[np.ndarray]]:
            how = {"batch_size": self.batch_size, "precision": self.precision}
            where = {"device": self.world.device, "workers": self.world.loader_workers}
            return ([part] for part in embedding_batches(self.network, pixels, rows, numbers, **how, **where))

        told = {"label": label, "place": place}
        batch = rows_at_once(pixels, self.batch_size)
        fill([path], (len(rows), self.dimension), dtype, compute, batch_size=batch, world=self.world, **told)
        # All open it before any goes on: the first process may move or remove its folder next.
        return self.world.run_on_all(lambda: np.load(path, mmap_mode="r"))


def unit_digest(folder: Path) -> str:
    """Digest of a unit's weights."""
    return digest_file(folder / WEIGHTS)


def run_embedder(run: Run, fold: int | None = None, device: str | World = "auto") -> Embedder:
    """The refit network of a run, or that of a fold, on a device or for the processes of a World. Raises UserError where it is not there, with the command that makes it."""
    info = run.info()
    folder = run.path / REFIT if fold is None else run.fold(fold)
    if not run.unit_done(folder.name):
        raise UserError(_absent(run, info, fold))
    trained = load_trained(folder, device)
    identity = {"run": str(run.path.resolve()), "unit": folder.name, "digest": unit_digest(folder)}
    return Embedder(trained.network, trained.precision, trained.world, run.recipe.predict.batch_size, identity)


def _absent(run: Run, info: dict[str, Any], fold: int | None) -> str:
    if fold is not None:
        done = [path.parent.name for path in sorted(run.path.glob("fold-*/fold.json"))]
        return f"--fold {fold}: {run.path} has no such finished fold; it has {', '.join(done) or 'none yet'}"
    if run.recipe.cv.refit is True:
        return f"{run.path}: its refit network is not trained yet; run its command again, it goes on where it stopped"
    command = shlex.join(
        [
            *("pcam-ssl", info["command"], "--data", info["dataset"], "--recipe", str(run.paths.recipe)),
            *("--set", "cv.refit=true", "--out", f"{run.path}-refit"),
        ]
    )
    return f"{run.path}: has a network for each fold but none on all slides, so no one embedding space; `{command}` makes one"


def frozen_embedder(
    name: str,
    size_px: int,
    pretrained: bool = True,
    image_size: int | None = None,
    device: str | World = "auto",
    weights: Path | str | None = None,
) -> Embedder:
    """A timm or `hf-hub:` backbone as it is published, or with the file `weights`, for patches of `size_px`; pooled features, no head.

    Raises UserError for an unknown name, for weights out of reach, and for a file that does not fit.
    """
    world = device if isinstance(device, World) else alone(device)
    precision = choose_precision(world.device)
    if not pretrained and weights is None:
        warn(f"{name}: --no-pretrained gives RANDOM weights; such embeddings know next to nothing of tissue")
        torch.manual_seed(RANDOM_SEED)
    try:
        network = build_network(name, pretrained and weights is None, size_px, image_size)
        if weights is not None:
            say(_for_the_command(load_weights_file(network, Path(weights)).line(name)))
        elif pretrained and (package := package_for(name)) is not None:
            say(_for_the_command(package.line))
    except UserError as error:
        raise UserError(*map(_for_the_command, error.problems)) from None
    if (note := resizing(name, size_px, image_size)) is not None:
        say(note)
    # The unused head is random and no part of what embeds.
    tensors = save({key: value.contiguous() for key, value in network.backbone.state_dict().items()})
    # Nor did embeddings differ by how patches are resized while all were resized by bilinear interpolation.
    # Packages and the hub have weights of one name under two normalisations.
    normalised = repr((network.config.mean, network.config.std)).encode() if name in PACKAGES or weights is not None else b""
    resized = network.config.image_size is not None and network.config.interpolation != "bilinear"
    rules = (network.config.interpolation if resized else "") + (network.config.tokens or "")
    digest = hashlib.sha256(tensors + rules.encode() + normalised).hexdigest()
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    network = network.to(world.device, memory_format=layout).eval()
    identity = {"model": name, "pretrained": pretrained, "image_size": image_size, "digest": digest}
    identity |= {} if weights is None else {"weights": str(Path(weights).resolve())}
    return Embedder(network, precision, world, FROZEN_BATCH, identity)


def _for_the_command(problem: str) -> str:
    """Words of a recipe as options of the command."""
    words = {
        "set model.pretrained=false to train from scratch": "add --no-pretrained for random weights",
        "set model.pretrained=false": "add --no-pretrained",
        "set another size": "give another --image-size",
        "model.image_size": "--image-size",
        "model.weights": "--weights",
        "model.pretrained": "--model",
        "model.name": "--model",
    }
    for recipe, option in words.items():
        problem = problem.replace(recipe, option)
    return problem


def embedder_of(networks: Networks, fold: int | None, what: str, device: str) -> Embedder:
    """The network of `fold`, else the refit, else the first finished fold, ready to embed. Raises UserError where it is not there."""
    unit = networks.one(fold, what).name
    return run_embedder(networks.run, None if unit == REFIT else int(unit.removeprefix("fold-")), device)


@contextmanager
def embedded(networks: Networks, embedder: Embedder, patches: pd.DataFrame, beside: Path):
    """Yield embeddings float32 `[N, D]` of `patches`, in a file in the folder `beside` that goes when the block ends.

    So memory does not grow with N. Raises UserError where the disk has no room, or an embedding is not finite.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".embedding-", dir=beside) as scratch:
        yield embedder.fill(
            Pixels(networks.dataset.path / PIXELS), patches.row.to_numpy(), Path(scratch) / "embeddings.npy", beside
        )


def scored_patches(networks: Networks, patches: pd.DataFrame) -> pd.DataFrame:
    """`patches` with `prob` (calibrated, of class 1) and `fold` of the networks that never saw them; unknown where none scored them.

    `fold` -1 is the mean of all folds, as in test.parquet.
    """
    scored = networks.scored()
    known = scored.reindex(patches.id)
    return patches.assign(prob=known.prob.array, fold=pd.array(known.fold.array, "Int8")).reset_index(drop=True)
