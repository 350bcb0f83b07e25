"""What drawing a batch costs with and without pseudo-labels: times of one process, each a ratio to the same method without. No network, no pixels.

python scripts/bench_batches.py [--patches 100000] [--slides 2000] [--pool 100000] [--batch-size 64]
"""

import argparse
import sys
import time
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pcam_ssl.cross_validation.training_data import batch_plan
from pcam_ssl.recipe.loading import load_recipe

STEPS, TURNS = 300, 7
METHODS = {
    "supervised": (),
    "metric": ("method.name=metric",),
    "metric, slide-aware": ("method.name=metric", "method.loss=triplet", "method.slide_aware=true"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("patches", 100_000), ("slides", 2_000), ("pool", 100_000), ("batch-size", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n = options.patches + options.pool
    labels = rng.integers(0, 2, n)
    # Every patch of the pool is of unknown slide: a slide of its own.
    slides = np.concatenate([rng.integers(0, options.slides, options.patches), options.slides + np.arange(options.pool)])
    print(
        f"| {options.patches:,} labels of {options.slides:,} slides, batches of {options.batch_size} | labels alone, µs"
        f" | and {options.pool:,} pseudo-labels, half of a batch, µs | ratio |\n|---|---|---|---|"
    )
    for name, settings in METHODS.items():
        recipe = load_recipe(None, [*settings, f"train.batch_size={options.batch_size}", "pseudo.mix=0.5"])
        alone = batch_plan(recipe, labels[: options.patches], slides[: options.patches], 0)
        mixed = batch_plan(recipe, labels, slides, 0, options.patches)
        times = np.array([[_microseconds(plan, turn) for plan in (alone, mixed)] for turn in range(TURNS)])
        ratios = times[:, 1] / times[:, 0]
        told = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
        print(f"| {name} | {np.median(times[:, 0]):.0f} | {np.median(times[:, 1]):.0f} | {told} |")


def _microseconds(plan, turn: int) -> float:
    begun = time.perf_counter()
    for step in range(turn * STEPS, (turn + 1) * STEPS):
        plan.batch(step)
    return (time.perf_counter() - begun) / STEPS * 1e6


if __name__ == "__main__":
    main()
