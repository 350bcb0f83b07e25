"""Training benchmarks: step (overhead of the tool's step), article (against the plain way)."""

import time
from collections.abc import Callable
from itertools import cycle, islice

import numpy as np
import pandas as pd
import torch
from bench_inputs import Inputs, pixels_of, place
from bench_measure import at_least, at_most, compare, rate, ratios, take_turns
from bench_plain import PlainPatches, PlainTraining
from timm.utils import ModelEmaV3
from torch.nn.functional import binary_cross_entropy_with_logits

from pcam_ssl.cross_validation.fitting import new_network
from pcam_ssl.cross_validation.training_data import batch_plan
from pcam_ssl.data.batches import TrainStream, load
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.views import Views
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import World
from pcam_ssl.methods import build_method
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.training.loop import CHECK_STEPS_GPU, Plan, Training, train_step
from pcam_ssl.training.optim import Schedule, build_optimizer

EMA_DECAY = 0.998
ENDLESS = 10**9
CPU = World(0, 1, torch.device("cpu"))


def article(*settings: str) -> Recipe:
    """The article's recipe from random weights, at the patches' own size unless set."""
    return load_recipe("article-resnet34", ("model.pretrained=false", "model.image_size=null", *settings))


def build_training(recipe: Recipe, dataset: Dataset, world: World, ema_decay: float | None = None) -> Training:
    """What `fit` is given for a fold of `dataset`, by the recipe's own options."""
    precision = choose_precision(world.device)
    network = new_network(recipe, dataset.size_px)
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    network.to(world.device, memory_format=layout)
    if recipe.train.compile is True:
        network.compile(dynamic=False)
    labels = labelled_rows(dataset.patches)["label"].to_numpy(np.int64)
    method = build_method(recipe.method.model_dump(), network, labels).to(world.device).train()
    optimizer = build_optimizer(method, recipe.optim.model_dump(), world.device)
    schedule = Schedule(recipe.schedule.model_dump(), recipe.optim.lr, recipe.train.epochs, ENDLESS)
    ema = ModelEmaV3(network, ema_decay, use_warmup=True) if ema_decay else None
    return Training(method, optimizer, schedule, ema, torch.amp.GradScaler(world.device.type, enabled=precision.name == "fp16"))


def labelled_stream(recipe: Recipe, dataset: Dataset, pixels: Callable[[np.ndarray], object]) -> TrainStream:
    """Batches of all labelled patches under the recipe's views; `pixels` gives those of some rows."""
    patches = labelled_rows(dataset.patches)
    rows, labels, slides = patches["row"].to_numpy(), patches["label"].to_numpy(np.int64), pd.factorize(patches["wsi"])[0]
    plan = batch_plan(recipe, labels, slides, recipe.seed)
    views = Views(recipe.views.policy, recipe.views.strength, recipe.views.transform)
    return TrainStream(pixels(rows), rows, labels, plan, views, recipe.seed, slides=slides)


class ToolSide:
    """The tool's loader and step. Calling it trains `steps` batches and returns their seconds."""

    def __init__(self, recipe: Recipe, dataset: Dataset, world: World, steps: int, ema_decay: float | None = None):
        self.training = build_training(recipe, dataset, world, ema_decay)
        self.world, self.steps = world, steps
        self.precision = choose_precision(world.device)
        self.plan = Plan(recipe.train.epochs, ENDLESS, recipe.seed, recipe.train.clip_norm)
        self.check_steps = CHECK_STEPS_GPU if world.device.type == "cuda" else 1
        self.stream = labelled_stream(recipe, dataset, lambda rows: pixels_of(dataset))

    def __call__(self) -> float:
        begun = time.perf_counter()
        numbers = range(self.training.step, self.training.step + self.steps)
        self.train(load(self.stream, numbers, 0, self.world.device))
        return time.perf_counter() - begun

    def train(self, batches) -> None:
        """As `fit` does it: a step a batch, losses read every `check_steps`."""
        pending = []
        for batch in batches:
            pending.append(train_step(self.training, self.training.method, batch, self.plan, self.precision, self.world))
            self.training.step += 1
            if len(pending) == self.check_steps:
                torch.stack(pending).tolist()
                pending = []
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()


class BareSide:
    """Forward, backward, optimizer step of the same network on batches that lie on the device already."""

    def __init__(self, recipe: Recipe, dataset: Dataset, world: World, steps: int):
        training = build_training(recipe, dataset, world)
        self.network, self.optimizer, self.scaler = training.method.network, training.optimizer, training.scaler
        self.precision, self.world, self.steps = choose_precision(world.device), world, steps
        shape = (recipe.train.batch_size, dataset.size_px, dataset.size_px, 3)
        self.batches = [
            (torch.randint(256, shape, dtype=torch.uint8).to(world.device), torch.randint(2, shape[:1]).float().to(world.device))
            for _ in range(4)
        ]

    def __call__(self) -> float:
        begun = time.perf_counter()
        for pixels, labels in islice(cycle(self.batches), self.steps):
            with self.precision.autocast(self.world.device):
                loss = binary_cross_entropy_with_logits(self.network(pixels)["logit"], labels)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.world.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun


def step(inputs: Inputs):
    """Time of the tool's step, loader and views included, over the bare step."""
    yardstick = load_recipe("pcam-mini-official")
    for recipe, steps in ((article(), inputs.size(3, 1)), (yardstick, inputs.size(8, 1))):
        recipe = _batch_of(recipe, inputs.size(64, 8))
        sides = {
            "no EMA": ToolSide(recipe, inputs.dataset, CPU, steps),
            "EMA": ToolSide(recipe, inputs.dataset, CPU, steps, EMA_DECAY),
            "bare": BareSide(recipe, inputs.dataset, CPU, steps),
        }
        seconds = take_turns(sides, inputs.size(9, 2))
        patches = steps * recipe.train.batch_size
        for name in ("no EMA", "EMA"):
            yield compare(
                f"step: {recipe.model.name}, {inputs.dataset.size_px} px, {name}",
                ratios(seconds[name], seconds["bare"]),
                at_most(1.05),
                rate(patches, seconds[name], "patches"),
                rate(patches, seconds["bare"], "patches"),
                place(CPU.device, choose_precision(CPU.device)),
            )


def against_plain_way(inputs: Inputs):
    """Images/s of the tool's training over the plain way's, with the loader workers of a common script and without."""
    steps, batch_size = inputs.size(4, 1), inputs.size(64, 8)
    recipe = _batch_of(article(), batch_size)
    dataset, files = inputs.kaggle_dataset, inputs.tiffs
    patches = PlainPatches(files, labelled_rows(dataset.patches)["label"].to_numpy(np.int64))
    sides = {workers: PlainTraining("resnet34", patches, batch_size, steps, workers) for workers in (2, 0)}
    seconds = take_turns({"tool": ToolSide(recipe, dataset, CPU, steps), **sides}, inputs.size(5, 2))
    for workers in sides:
        yield compare(
            f"article: resnet34, {dataset.size_px} px, plain way with {workers} loader workers",
            ratios(seconds[workers], seconds["tool"]),
            at_least(1.8),
            rate(steps * batch_size, seconds["tool"], "patches"),
            rate(steps * batch_size, seconds[workers], "patches"),
            place(CPU.device, choose_precision(CPU.device)),
        )


def _batch_of(recipe: Recipe, batch_size: int) -> Recipe:
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": batch_size})})
