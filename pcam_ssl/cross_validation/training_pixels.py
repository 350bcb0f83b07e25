"""Where the pixels of a unit lie while it trains, and what computes their views: `train.data` and `views.engine`."""

from collections.abc import Iterable
from importlib.util import find_spec

import numpy as np
import torch

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.training_data import TrainingSet
from pcam_ssl.data.dataset import PIXELS, Dataset
from pcam_ssl.data.folds import Folds, Unit
from pcam_ssl.data.pixels import DevicePixels, Inputs, Pixels
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.device import device_memory
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.terminal import say

PIXELS_SHARE = 0.5
"""Share of the device's memory that pixels may take. The rest is for the network, its activations and the optimizer."""


def for_device(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe with `views.engine` and `train.compile` decided where they are auto.

    They follow from the kind of device alone, not from its memory: views by the other engine differ by up to 1 of 255, so the engine is
    part of a run's identity, and a run must go on on a smaller device.
    """
    views, train = recipe.views, recipe.train
    if views.engine == "auto":
        views = views.model_copy(update={"engine": "tensor" if _views_on(recipe, device) else "albumentations"})
    if train.compile == "auto":
        # torch compiles for CUDA by triton, which not every platform has.
        compiles = device.type == "cuda" and not recipe.trains_on_features and find_spec("triton") is not None
        train = train.model_copy(update={"compile": compiles})
    return recipe.model_copy(update={"views": views, "train": train})


def _views_on(recipe: Recipe, device: torch.device) -> bool:
    """Whether views are computed on the device where the recipe leaves it open."""
    if recipe.train.data == "auto":
        return device.type == "cuda" and not recipe.trains_on_features and not recipe.draws_from_file
    return recipe.train.data == "device"


def training_inputs(context: RunContext, unit: Unit, patches: TrainingSet) -> Inputs:
    """What the batches of a unit are drawn from: pixels whose views the device computes where `views.engine` is tensor, with a copy of
    them on the device by `train.data`.

    Raises UserError on every process where they are to lie on the device and take more than PIXELS_SHARE of its memory. Rank 0 says
    where, under auto, they stay on the host for that reason.
    """
    recipe, world, dataset = context.recipe, context.world, context.dataset
    if recipe.views.engine != "tensor":
        return context.inputs
    pixels = DevicePixels(Pixels(dataset.path / PIXELS), world.device)
    if recipe.train.data == "host" or (recipe.train.data == "auto" and world.device.type != "cuda"):
        return pixels
    rows = patches.rows
    if learns_from_pool(recipe.method):
        rows = np.concatenate([rows, pool_rows(dataset, context.folds, unit).row.to_numpy()])
    # Devices may differ, and processes must agree whether to train.
    problem = _problem(unit, len(np.unique(rows)), dataset, min(world.gather(_room(world))))
    if problem is None and not all(world.gather(_copied(pixels, rows))):
        problem = f"{unit.name} trains on pixels that find no room beside what else the device holds"
    if problem is None:
        return pixels
    if recipe.train.data == "device":
        raise world.agreed(UserError(f"train.data=device: {problem}; set train.data=auto"))
    if world.is_main:
        say(f"train.data: {problem}; they are sent with each batch")
    return pixels


def _copied(pixels: DevicePixels, rows: np.ndarray) -> bool:
    """Copy the pixels; False where the device has too little memory left, of which others may take a part."""
    try:
        pixels.copy(rows)
    except torch.OutOfMemoryError:
        return False
    return True


def check_room(recipe: Recipe, dataset: Dataset, folds: Folds, units: Iterable[Unit], world: World, pool: bool) -> None:
    """Raises UserError where `train.data` is device and the pixels of a unit, of its pool too where it learns from that, do not fit there."""
    if recipe.train.data != "device":
        return
    for unit in (each for whole in units for each in (whole, *whole.parts)):
        n = int(unit.train.sum()) + (len(pool_rows(dataset, folds, unit)) if pool else 0)
        if (problem := _problem(unit, n, dataset, _room(world))) is not None:
            raise UserError(f"train.data=device: {problem}; set train.data=auto")


def _room(world: World) -> int:
    """Bytes of the device that the pixels of one process may take. Processes on CPU share one memory."""
    return int(PIXELS_SHARE * device_memory(world.device)) // (world.size if world.device.type == "cpu" else 1)


def _problem(unit: Unit, n: int, dataset: Dataset, room: int) -> str | None:
    """Why `n` patches do not fit into `room` bytes; None where they do."""
    needed = n * 3 * dataset.size_px**2
    if needed <= room:
        return None
    return (
        f"{unit.name} trains on {n:,} patches of {needed / 1e9:,.1f} GB, and {PIXELS_SHARE:.0%} of the device's memory is"
        f" {room / 1e9:,.1f} GB"
    )
