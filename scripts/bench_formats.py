"""Benchmark of training on CPU: number formats, gradients of depthwise convolutions, and training over prediction."""

import time
from collections.abc import Callable

import torch
from bench_inputs import Inputs, place
from bench_measure import Row, at_least, at_most, compare, rate, ratios, take_turns
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.models.depthwise import speed_up_depthwise
from pcam_ssl.models.network import Network, build_network

CPU = torch.device("cpu")
SIZE_PX = 96
BACKBONES = ("resnet18", "convnext_nano", "tf_efficientnet_lite0")
WITHOUT_DEPTHWISE = ("resnet18",)


def new_network(name: str, precision: Precision, fast: bool = True) -> Network:
    """A network as a fold trains it, from random weights; without `fast` with torch's own depthwise gradients."""
    network = build_network(name, False, SIZE_PX)
    if fast:
        speed_up_depthwise(network, CPU)
    return network.to(memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)


def training_step(network: Network, precision: Precision, pixels: torch.Tensor) -> Callable[[], None]:
    """A function that trains one batch."""
    optimizer = torch.optim.SGD(network.train().parameters(), lr=1e-3, momentum=0.9)
    labels = torch.arange(len(pixels)).remainder(2).float()

    def step() -> None:
        with precision.autocast(CPU):
            loss = binary_cross_entropy_with_logits(network(pixels)["logit"], labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def prediction(network: Network, precision: Precision, pixels: torch.Tensor) -> Callable[[], None]:
    """A function that predicts one batch."""
    network.eval()

    def predict() -> None:
        with torch.inference_mode(), precision.autocast(CPU):
            network(pixels)

    return predict


def cpu_timed(work: Callable[[], None]) -> Callable[[], float]:
    """`work` as a side of `take_turns` in seconds of CPU time over all threads, which other jobs change less than wall time."""

    def side() -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    return side


def formats(inputs: Inputs):
    """Training in the format that `auto` takes over other formats, over torch's own depthwise gradients, and over prediction."""
    auto = choose_precision(CPU)
    other = Precision("fp32" if auto.name == "bf16" else "bf16", True, "the other format")
    first = Precision(auto.name, False, "channels first")
    pixels = torch.randint(256, (inputs.size(32, 4), SIZE_PX, SIZE_PX, 3), dtype=torch.uint8)
    for name in BACKBONES:
        sides = {
            "auto": training_step(new_network(name, auto), auto, pixels),
            "torch's gradients": training_step(new_network(name, auto, fast=False), auto, pixels),
            "other format": training_step(new_network(name, other), other, pixels),
            "channels first": training_step(new_network(name, first), first, pixels),
            "prediction": prediction(new_network(name, auto), auto, pixels),
        }
        if name in WITHOUT_DEPTHWISE:
            del sides["torch's gradients"]
        seconds = take_turns({side: cpu_timed(work) for side, work in sides.items()}, inputs.size(9, 2))

        def row(what: str, over: str, under: str, target, name=name, seconds=seconds) -> Row:
            sides = (
                f"{rate(len(pixels), seconds[side], 'patches')} of CPU time"
                for side in ("auto", over if under == "auto" else under)
            )
            return compare(
                f"formats: {name}, {SIZE_PX} px, {what}", ratios(seconds[over], seconds[under]), target, *sides, place(CPU, auto)
            )

        if name not in WITHOUT_DEPTHWISE:
            yield row("over torch's depthwise gradients", "torch's gradients", "auto", at_least(1.2))
        yield row(f"over {other.name}, channels last", "other format", "auto", at_least(1))
        yield row(f"over {first.name}, channels first", "channels first", "auto", at_least(1))
        yield row("time of training over prediction", "auto", "prediction", at_most(4))
