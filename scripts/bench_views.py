"""Training views by tensor operations against albumentations: a batch of views, and whole training steps. CPU time, in turns.

OMP_NUM_THREADS=1 python scripts/bench_views.py [--data DATASET] [--rounds 9] [--quick]
"""

import argparse
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from bench import table
from bench_inputs import Inputs, machine, pixels_of, place
from bench_measure import at_most, compare, rate, ratios, take_turns
from bench_training import CPU, ToolSide

from pcam_ssl.data.batches import load
from pcam_ssl.data.pixels import DevicePixels
from pcam_ssl.data.views import Views
from pcam_ssl.device import choose_precision
from pcam_ssl.recipe.loading import load_recipe

BATCH = 64
NETWORKS = {"test_resnet": 12, "resnet18": 3}
"""Networks, and the steps of a turn."""
# Other programs on the machine would be measured too. Nothing here waits.
CLOCK = time.process_time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="sizes that only prove that it runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-bench-") as folder:
        inputs = Inputs(options.data, Path(folder), options.quick)
        rounds = inputs.size(options.rounds, 2)
        rows = [*views(inputs, rounds), *steps(inputs, rounds)]
    print(f"{machine()}\n\n{table(rows)}")


def copied(inputs: Inputs) -> DevicePixels:
    """All pixels of the dataset, as `train.data=device` copies them."""
    pixels = DevicePixels(pixels_of(inputs.dataset), CPU.device)
    pixels.copy(inputs.dataset.patches.row.to_numpy())
    return pixels


def views(inputs: Inputs, rounds: int):
    """Views of batches, drawn and computed; each side reads the same rows."""
    rows, size_px = inputs.dataset.patches.row.to_numpy()[:BATCH], inputs.dataset.size_px
    file, device = pixels_of(inputs.dataset), copied(inputs)
    for policy in ("d4", "standard", "strong"):
        each, number = Views(policy), iter(range(10**9))

        def keys(number=number):
            turn = next(number)
            return [(0, 2, turn, n) for n in range(len(rows))]

        def albumentations(each=each, keys=keys):
            file.draw(rows, [each] * len(rows), keys())

        def tensor(each=each, keys=keys):
            device.render({"pixels": device.draw(rows, [each] * len(rows), keys())})

        def drawing(each=each, keys=keys):
            device.draw(rows, [each] * len(rows), keys())

        sides = {work.__name__: _repeated(work, inputs.size(8, 1)) for work in (albumentations, tensor, drawing)}
        seconds = take_turns(sides, rounds)
        count = inputs.size(8, 1) * len(rows)
        drawn = np.median(seconds["drawing"]) / count * 1e6
        yield compare(
            f"views: {policy}, {size_px} px, of which drawing {drawn:.0f} µs a patch",
            ratios(seconds["tensor"], seconds["albumentations"]),
            at_most(1),
            *(f"{np.median(seconds[name]) / count * 1e6:.0f} µs a patch" for name in ("tensor", "albumentations")),
            place(CPU.device),
        )


def steps(inputs: Inputs, rounds: int):
    """Steps of training, loader and views included."""
    for (name, full), policy in ((each, policy) for each in NETWORKS.items() for policy in ("standard", "strong")):
        recipe = load_recipe(
            None,
            [f"model.name={name}", "model.pretrained=false", f"views.policy={policy}", f"train.batch_size={inputs.size(BATCH, 8)}"],
        )
        count = inputs.size(full, 1)
        sides = {engine: Steps(recipe, inputs, count) for engine in ("albumentations", "tensor")}
        sides["tensor"].stream.pixels = copied(inputs)
        seconds = take_turns(sides, rounds)
        yield compare(
            f"step: {name}, {policy}, {inputs.dataset.size_px} px",
            ratios(seconds["tensor"], seconds["albumentations"]),
            at_most(1),
            *(rate(count * recipe.train.batch_size, seconds[engine], "patches") for engine in ("tensor", "albumentations")),
            place(CPU.device, choose_precision(CPU.device)),
        )


class Steps(ToolSide):
    """The tool's loader and step, in CPU time."""

    def __init__(self, recipe, inputs: Inputs, count: int):
        super().__init__(recipe, inputs.dataset, CPU, count)

    def __call__(self) -> float:
        begun = CLOCK()
        first = self.training.step
        self.train(islice(load(self.stream, range(first, first + self.steps), 0, CPU.device), self.steps))
        return CLOCK() - begun


def _repeated(work, times: int):
    def side() -> float:
        begun = CLOCK()
        for _ in range(times):
            work()
        return CLOCK() - begun

    return side


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
