"""Saving and loading a network. `model.safetensors` and `model.json` hold all that predict, search, explain and export need.

Loading never unpickles.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.distributed import World, alone
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write, write_json
from pcam_ssl.models.network import Network, rebuild_network
from pcam_ssl.records import read_model
from pcam_ssl.terminal import warn

WEIGHTS, FACTS = "model.safetensors", "model.json"
LOSS_PREFIX = "metric_loss."
FORMAT = 1


def save_weights(folder: Path, network: nn.Module, metric_loss: nn.Module | None = None, heads_only: bool = False) -> None:
    """Write the weights and buffers of a network (`heads_only`: without its backbone), and those of its metric loss (class vectors)."""
    tensors = {name: value for name, value in network.state_dict().items() if not (heads_only and name.startswith("backbone."))}
    if metric_loss is not None:
        tensors |= {LOSS_PREFIX + name: value for name, value in metric_loss.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        # Not safetensors' save_file: it makes the file readable by its owner only, and wraps the error of a full disk.
        temporary.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def add_backbone(folder: Path, backbone: nn.Module) -> None:
    """Write the weights of the frozen backbone beside those of its heads, so that the file is a whole network."""
    tensors = load_file(folder / WEIGHTS) | {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def save_facts(folder: Path, network: Network, **facts: Any) -> None:
    """Write model.json: the network's config and the given `facts` (calibration, recipe, digests)."""
    write_json(folder / FACTS, {"format": FORMAT, "network": network.config.to_dict(), **facts})


def load_weights(folder: Path, network: Network, metric_loss: nn.Module | None = None, heads_only: bool = False) -> None:
    """Load saved weights into a network (`heads_only`: its backbone stays as it is), and into a metric loss where given. Raises UserError where the file is absent, damaged, or does not fit."""
    try:
        tensors = load_file(folder / WEIGHTS)
        mine = {name: value for name, value in tensors.items() if not name.startswith(LOSS_PREFIX)}
        if heads_only:
            backbone = (
                {f"backbone.{name}": value for name, value in network.backbone.state_dict().items()} if network.backbone else {}
            )
            mine = {name: value for name, value in mine.items() if not name.startswith("backbone.")} | backbone
        network.load_state_dict(mine)
        if metric_loss is not None:
            learned = {name.removeprefix(LOSS_PREFIX): value for name, value in tensors.items() if name.startswith(LOSS_PREFIX)}
            metric_loss.load_state_dict(learned)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: no such file; train the run to its end first") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS}: damaged ({error}); delete {folder} and train that fold again") from None
    except RuntimeError as error:
        first = str(error).splitlines()[-1 if len(str(error).splitlines()) < 2 else 1].strip()[:120]
        raise UserError(
            f"{folder / WEIGHTS}: belongs to another network ({first}); name a run with the same model section"
        ) from None


def load_network(
    folder: Path, device: torch.device, channels_last: bool = False, heads_of: Network | None = None
) -> tuple[Network, dict[str, Any]]:
    """The network of a fold's folder on `device`, in eval mode, and its model.json. Raises UserError where it is absent or damaged.

    With `heads_of`, a network with the same backbone, only the heads are loaded; they take its features.
    """
    facts = read_model(folder, FORMAT)
    try:
        network = rebuild_network(facts["network"]) if heads_of is None else heads_of.heads()
    except (TypeError, ValueError, RuntimeError) as error:  # timm does not know the architecture or an argument
        raise UserError(f"{folder / FACTS}: damaged ({first_line(error)}); delete {folder} and train that fold again") from None
    load_weights(folder, network, heads_only=heads_of is not None)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return network.to(device, memory_format=layout).eval(), facts


@dataclass(frozen=True)
class Trained:
    """A network in eval mode, its model.json as `facts`, and the precision and world to run it in."""

    network: Network
    facts: dict[str, Any]
    precision: Precision
    world: World


def load_trained(folder: Path, device: str | World = "auto") -> Trained:
    """The network in a unit's folder (`fold-K` or `refit`) on a device, or for the processes of a World. Raises UserError where it is absent or damaged."""
    world = device if isinstance(device, World) else alone(device)
    network, facts = load_network(folder, world.device)
    precision = _precision(facts["precision"], world)
    if precision.channels_last:
        network.to(memory_format=torch.channels_last)
    return Trained(network, facts, precision, world)


def _precision(trained: dict, world: World) -> Precision:
    """The number format of the training, where this device is fast in it; else the device's own format, with a warning."""
    here = choose_precision(world.device)
    if trained["name"] in ("fp32", here.name):
        return Precision(trained["name"], trained["channels_last"], trained["why"])
    warn(
        f"the run was trained in {trained['name']}, {world.device.type} computes in {here.name} ({here.why}); logits may differ in the second decimal"
    )
    return here


class CalibratedNetwork(nn.Module):
    """A trained network for patches uint8 `[B, H, W, 3]` (tensor or array), as they are: one view, no test-time views.

    `forward` returns the logits `[B]` of class 1 (tumor), `prob` their calibrated probabilities, `embedding` unit vectors `[B, D]`.
    Raises UserError where the run trained no classifier, whose head would be noise; it has an embedding.
    """

    def __init__(self, trained: Trained, folder: Path):
        super().__init__()
        self.network = trained.network
        self.temperature = float(trained.facts["calibration"]["temperature"])
        self.classifies = trained.facts.get("scored_by") != "knn"
        self.folder = folder

    def forward(self, patches: Any) -> torch.Tensor:
        """Logits `[B]` of class 1."""
        if not self.classifies:
            raise UserError(
                f"{self.folder}: trained no classifier (method.classify=false); take its `embedding`, or `pcam-ssl predict`, which asks the neighbours"
            )
        return self.network(self._pixels(patches))["logit"]

    def prob(self, patches: Any) -> torch.Tensor:
        """Calibrated probabilities `[B]` of class 1, float64."""
        with torch.inference_mode():
            return torch.sigmoid(self(patches).double() / self.temperature)

    def embedding(self, patches: Any) -> torch.Tensor:
        """Embeddings `[B, D]` of unit length."""
        return self.network(self._pixels(patches))["embedding"]

    def _pixels(self, patches: Any) -> torch.Tensor:
        if not isinstance(patches, torch.Tensor):
            # A copy: a dataset's pixels cannot be written to, and torch warns of such arrays.
            patches = torch.from_numpy(np.array(patches))
        pixels = patches.to(self.network.mean.device)
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            kind = str(pixels.dtype).removeprefix("torch.")
            raise UserError(f"patches: are {kind} {list(pixels.shape)}; give uint8 [B, H, W, 3], colours last and not scaled")
        return pixels


def load_calibrated(folder: Path, device: str = "auto") -> CalibratedNetwork:
    """The network of a unit's folder with its calibration, ready to score. Raises UserError where it is absent or damaged."""
    return CalibratedNetwork(load_trained(folder, device), folder).eval()
