"""A trained network of a run, on the device at hand, in the number format it was trained in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.distributed import World, choose_device
from pcam_ssl.models.artefact import load_network
from pcam_ssl.models.network import Network
from pcam_ssl.terminal import warn


@dataclass(frozen=True)
class Trained:
    """A network ready to score or embed, and what its artefact says of it."""

    network: Network
    facts: dict[str, Any]
    precision: Precision
    world: World


def load_trained(folder: Path, device: str = "auto") -> Trained:
    """The network of a unit's folder (`fold-K` or `refit`). Raises UserError where it is absent or damaged."""
    world = World(0, 1, choose_device(device))
    network, facts = load_network(folder, world.device)
    precision = _precision(facts["precision"], world)
    if precision.channels_last:
        network.to(memory_format=torch.channels_last)
    return Trained(network, facts, precision, world)


def _precision(trained: dict, world: World) -> Precision:
    """The format the network was trained in, where this device computes in it; else this device's own, and that is said."""
    here = choose_precision(world.device)
    if trained["name"] in ("fp32", here.name):
        return Precision(trained["name"], trained["channels_last"], trained["why"])
    warn(
        f"the run was trained in {trained['name']}, {world.device.type} computes in {here.name} ({here.why}); logits may differ in the second decimal"
    )
    return here
