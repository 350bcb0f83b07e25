"""How fast this machine trains, in each number format: a short measurement for `pcam-ssl doctor`. Runs do not depend on it."""

import copy
import time

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam_ssl.device import Precision
from pcam_ssl.models.depthwise import speed_up_depthwise
from pcam_ssl.models.network import build_network

BACKBONE, SIZE_PX, BATCH = "resnet18", 96, 8
ROUNDS = 3


def training_rates(device: torch.device, precisions: list[Precision]) -> dict[str, float]:
    """Patches/s of training `BACKBONE` at 96 px in each precision, by its name: the fastest of some steps, after one to warm up.

    The precisions take turns, so that other work on the machine slows them alike.
    """
    original = speed_up_depthwise(build_network(BACKBONE, False, SIZE_PX).train(), device)
    steps = {precision.name: _step(copy.deepcopy(original), precision, device) for precision in precisions}
    for step in steps.values():
        step()
    seconds = [{name: step() for name, step in steps.items()} for _ in range(ROUNDS)]
    return {name: BATCH / min(turn[name] for turn in seconds) for name in steps}


def _step(network: torch.nn.Module, precision: Precision, device: torch.device):
    """A function that computes the gradients of one batch and returns the seconds it took."""
    network.to(device, memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)
    noise = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (BATCH, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8, generator=noise).to(device)
    labels = torch.zeros(BATCH, device=device)

    def step() -> float:
        begun = time.perf_counter()
        with precision.autocast(device):
            loss = binary_cross_entropy_with_logits(network(pixels)["logit"], labels)
        network.zero_grad(set_to_none=True)
        loss.backward()
        # Reading a value waits for the device.
        next(network.parameters()).grad.sum().item()
        return time.perf_counter() - begun

    return step
