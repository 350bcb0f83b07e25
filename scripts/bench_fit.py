"""Training on a GPU: images/s of `training.loop.fit` over the bare compiled step, and its share of the card's peak. On a CPU it only proves that it runs."""

import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from bench_inputs import Inputs, device_name, pixels_of, place
from bench_measure import Row, at_least, compare, rate, ratios, spread, take_turns
from bench_training import BareSide, article, build_training, labelled_stream
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.flop_counter import FlopCounterMode

from pcam_ssl.cross_validation.cross_validate import loader_workers
from pcam_ssl.cross_validation.fitting import new_network
from pcam_ssl.cross_validation.training_pixels import for_device
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.pixels import DevicePixels
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import World
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.training.loop import CHECK_STEPS_GPU, Plan, fit

PEAK_TFLOPS = {
    "B200": 2250,
    "GH200": 989,
    "H200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "A100": 312,
    "A30": 165,
    "A10G": 70,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}
"""Dense bf16 (V100, T4: fp16) of NVIDIA's datasheets in TFLOP/s, by a word of the card's name; the first that fits counts."""
SIZES = (("resnet34", 96, 256, 400), ("resnet34", 224, 64, 200), ("resnet18", 96, 256, 400))
"""Network, edge in px, batch, counted steps."""
TARGETS = {"device": 0.95, "host": 0.9}


def this_world() -> World:
    """The first GPU; the CPU where there is none."""
    return World(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


def size(inputs: Inputs, full: int, tiny: int) -> int:
    """`full` on a GPU; `tiny` on a CPU, which only proves that it runs, and where a quick run is asked for."""
    return inputs.size(full, tiny) if torch.cuda.is_available() else tiny


def judged(row: Row) -> Row:
    """The row; where a CPU computed it, the device is `cpu` and no target counts as met or missed."""
    return row if torch.cuda.is_available() else replace(row, met=None, place=replace(row.place, device="cpu"))


class FitSide:
    """`fit` on a dataset. Calling it trains further and returns the seconds of `steps` steps, without the first ones: the loader's start, compilation."""

    def __init__(self, recipe: Recipe, dataset: Dataset, world: World, steps: int, folder: Path):
        self.training = build_training(recipe, dataset, world)
        self.world, self.folder, self.recipe = world, folder, recipe
        self.check_steps = CHECK_STEPS_GPU if world.device.type == "cuda" else 1
        self.uncounted, self.steps = 2 * self.check_steps, steps
        self.stream = labelled_stream(recipe, dataset, lambda rows: _pixels(recipe, dataset, rows, world))

    def __call__(self) -> float:
        # Losses are read just before `advance`, so all steps told by then are done.
        told = []
        length = self.uncounted + self.steps
        plan = Plan(
            epochs=self.training.step // length + 1,
            steps_per_epoch=length,
            seed=self.recipe.seed,
            clip_norm=self.recipe.train.clip_norm,
            check_steps=self.check_steps,
            workers=loader_workers(self.recipe, self.world),
        )
        checkpoints = Path(tempfile.mkdtemp(dir=self.folder))
        fit(
            self.training,
            self.stream,
            plan,
            folder=checkpoints,
            precision=choose_precision(self.world.device),
            world=self.world,
            evaluate=lambda network: {"score": None, "loss": None},
            keep=lambda training: None,
            log=lambda event: None,
            rewind=lambda step: None,
            advance=lambda n, text: told.append(time.perf_counter()) if text else None,
        )
        shutil.rmtree(checkpoints)
        return told[-1] - told[self.uncounted // self.check_steps - 1]


def _pixels(recipe: Recipe, dataset: Dataset, rows: np.ndarray, world: World):
    """Where the pixels lie and what computes their views, as `training_inputs` decides for a fold."""
    if recipe.views.engine != "tensor":
        return pixels_of(dataset)
    pixels = DevicePixels(pixels_of(dataset), world.device)
    if recipe.train.data == "device":
        pixels.copy(rows)
    return pixels


def fitting(inputs: Inputs):
    """Images/s of `fit` from data on the device and from the host, over forward, backward and optimizer of the same compiled network on batches that lie on the device."""
    world = this_world()
    precision = choose_precision(world.device)
    for name, size_px, batch_size, steps in SIZES:
        batch_size, steps = size(inputs, batch_size, 4), size(inputs, steps, 2)
        settings = f"model.name={name}", f"model.image_size={size_px}", f"train.batch_size={batch_size}"
        recipes = {where: for_device(article(*settings, f"train.data={where}"), world.device) for where in TARGETS}
        flops = flops_of_image(recipes["device"], inputs.dataset.size_px)
        sides, peaks = {}, {}
        for where, recipe in recipes.items():
            sides[where], peaks[where] = _with_peak(recipe, inputs, world, steps)
        sides["bare"] = BareSide(recipes["device"], inputs.dataset, world, steps)
        seconds = take_turns(sides, size(inputs, 5, 2))
        for where, target in TARGETS.items():
            per_s = steps * batch_size / spread(seconds[where]).median
            row = compare(
                f"gpu-fit: {name}, {size_px} px, batch {batch_size}, train.data={where}",
                ratios(seconds["bare"], seconds[where]),
                at_least(target),
                f"{rate(steps * batch_size, seconds[where], 'patches')}, {share_of_peak(flops * per_s, world.device)}, {peaks[where]}",
                rate(steps * batch_size, seconds["bare"], "patches"),
                place(world.device, precision),
            )
            yield judged(row)


def _with_peak(recipe: Recipe, inputs: Inputs, world: World, steps: int) -> tuple[FitSide, str]:
    """A side, and in words the most memory of the GPU that it took, with its pixels, when it trained once."""
    if world.device.type != "cuda":
        return FitSide(recipe, inputs.dataset, world, steps, inputs.folder), "peak memory not measured: no GPU"
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    side = FitSide(recipe, inputs.dataset, world, steps, inputs.folder)
    side()
    return side, f"peak {(torch.cuda.max_memory_allocated() - before) / 1e9:.2f} GB"


def flops_of_image(recipe: Recipe, size_px: int) -> float:
    """Floating-point operations of forward and backward of one patch; a multiplication with its addition counts as two."""
    network, counter = new_network(recipe, size_px).train(), FlopCounterMode(display=False)
    with counter:  # batch norms need two patches
        logit = network(torch.randint(256, (2, size_px, size_px, 3), dtype=torch.uint8))["logit"]
        binary_cross_entropy_with_logits(logit, torch.tensor([0.0, 1.0])).backward()
    return counter.get_total_flops() / 2


def share_of_peak(flops_per_s: float, device: torch.device) -> str:
    """'31% of the peak of 989 TFLOP/s' by the datasheet; unknown for a CPU and for cards that PEAK_TFLOPS lacks."""
    name = device_name(device)
    known = [peak for card, peak in PEAK_TFLOPS.items() if re.search(rf"\b{card}\b", name)] if device.type == "cuda" else []
    if not known:
        return f"{flops_per_s / 1e12:.3g} TFLOP/s, share of peak unknown"
    return f"{flops_per_s / 1e12:.3g} TFLOP/s, {flops_per_s / 1e12 / known[0]:.0%} of the peak of {known[0]:,}"
