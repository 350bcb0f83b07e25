"""Cached features: how fast the cache is filled, how long runs on it take, and linear heads on many features.

python scripts/bench_features.py fill DATASET     the cache against the plain forward pass, on 2,048 patches in turns
python scripts/bench_features.py runs DATASET     5 folds, then 3 rounds, on a cache that is there; without start-up and report
    --set data.label_budget=1000    a pool, where the dataset has no patches without labels
python scripts/bench_features.py heads            5 folds of linear heads on 262,144 x 1,536 synthetic features of one view
"""

import argparse
import os
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.cross_validation.fold import train_unit
from pcam_ssl.cross_validation.frozen import Frozen
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.folds import fold_unit
from pcam_ssl.data.splits import make_folds
from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.models.features import BATCH, cached_features
from pcam_ssl.models.inference import dihedral
from pcam_ssl.models.network import Network, NetworkConfig
from pcam_ssl.models.new_network import new_network
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.begin import begin_run
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_predictions

SLIDES = 200
PATCHES = 2048
SETTINGS = [
    "model.freeze_backbone=true",
    "model.pretrained=false",
    "views.policy=none",
    "predict.d4=false",
    "cv.inner_folds=5",
    "neighbours.use=false",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("fill", "runs", "heads"))
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--patches", type=int, default=262_144)
    parser.add_argument("--dimension", type=int, default=1_536)
    parser.add_argument("--set", nargs="*", action="extend", default=[], help="runs: settings of the recipe")
    options = parser.parse_args()
    if options.part == "heads":
        heads(options.patches, options.dimension)
    elif options.part == "fill":
        fill(options.dataset)
    else:
        runs(options.dataset, options.set)


def heads(patches: int, dimension: int) -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        context = synthetic(Path(folder), patches, dimension)
        begun = time.perf_counter()
        for k in range(context.folds.n_folds):
            train_unit(context, fold_unit(context.folds, k))
        seconds = time.perf_counter() - begun
        oof = pd.concat(read_predictions(context.run.fold(k) / "oof.parquet") for k in range(context.folds.n_folds))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{patches:,} x {dimension:,}: 5 folds of 5 inner folds, up to 7 values of C: {seconds:.0f} s on {torch.get_num_threads()} threads"
    )
    print(
        f"peak of memory {peak_gb:.1f} GB (with the mapped file of features); AUROC {auroc(oof.label.to_numpy(int), oof.prob.to_numpy()):.3f}"
    )


def fill(path: Path, turns: int = 5) -> None:
    """Patches/s (patches x views) of `cached_features` over those of the bare backbone on patches in memory, in turns."""
    whole = open_dataset(path)
    dataset = replace(whole, patches=whole.patches.iloc[:PATCHES])
    recipe = load_recipe("frozen")
    precision, world = choose_precision(torch.device("cpu")), World(0, 1, torch.device("cpu"))
    network = new_network(recipe, dataset.size_px).to(memory_format=torch.channels_last).eval()
    network.freeze_backbone(True)
    pixels = torch.from_numpy(np.array(whole.pixels[:PATCHES]))
    ratios = []
    for turn in range(turns + 1):
        with tempfile.TemporaryDirectory() as cache:
            os.environ["PCAM_SSL_CACHE"] = cache
            begun = time.perf_counter()
            cached_features(dataset, network, [FixedViews("d4")], precision=precision, world=world)
            ours = time.perf_counter() - begun
        begun = time.perf_counter()
        with torch.inference_mode(), precision.autocast(world.device):
            for block in pixels.split(BATCH):
                for element in range(8):
                    network.features(dihedral(block, element))
        plain = time.perf_counter() - begun
        if turn:  # the first warms up
            ratios.append(plain / ours)
            print(f"cache {8 * PATCHES / ours:.0f} views/s, plain {8 * PATCHES / plain:.0f}: ratio {plain / ours:.3f}")
    print(f"ratio {np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def runs(path: Path, chosen: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("frozen", ["score.floor=false", *chosen])
        baseline(recipe, path, Path(folder) / "warm")  # fills the cache, and imports what is needed
        begun = time.perf_counter()
        run = baseline(recipe, path, Path(folder) / "run")
        five = time.perf_counter() - begun
        settings = ["pseudo.precision=null", "pseudo.top_share=1", "pseudo.balance=none", "pseudo.label=soft", "pseudo.mix=0.5"]
        settings += ["pseudo.stop_worse=false", "pseudo.planted_share=0", "pseudo.headroom=false"]
        begun, cpu = time.perf_counter(), time.process_time()
        pseudo_label(run.path, 3, settings=settings)
        three, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(f"5 folds {five:.1f} s, 3 rounds {three:.1f} s ({cpu:.1f} s of CPU time) on {torch.get_num_threads()} threads")


def synthetic(folder: Path, n: int, dimension: int) -> RunContext:
    """A run about to train on features whose slides differ, with a label in a few directions."""
    rng = np.random.default_rng(0)
    slide, label = np.arange(n) % SLIDES, (rng.random(n) < 0.4).astype(int)
    basis = rng.normal(size=(32, dimension)).astype(np.float32)
    of_slide = rng.normal(size=(SLIDES, 32)).astype(np.float32)
    array = np.lib.format.open_memmap(folder / "d4-0.npy", "w+", np.float16, (n, dimension))
    for begin in range(0, n, 8192):
        rows = slice(begin, min(begin + 8192, n))
        hidden = rng.normal(size=(rows.stop - rows.start, 32)).astype(np.float32) + of_slide[slide[rows]]
        hidden[:, :4] += 0.5 * label[rows, None]
        array[rows] = hidden @ basis / 8 + rng.normal(size=(len(hidden), dimension))
    array.flush()
    del array
    ids = [f"{number:08d}" for number in range(n)]
    patches = pd.DataFrame({"id": ids, "row": np.arange(n), "split": "train", "label": pd.array(label, dtype="Int8")})
    patches["wsi"] = [f"slide-{each:03d}" for each in slide]
    for name in ("od_r", "od_g", "od_b", "stain_h", "stain_e", "brightness"):
        patches[name] = rng.random(n)
    patches["pixel_hash"] = ids
    dataset = Dataset(folder, {"digest": "0" * 64, "n_slides": SLIDES}, patches, np.empty((0, 96, 96, 3), np.uint8))
    recipe = load_recipe(None, SETTINGS)
    run = Run(folder / "run")
    begin_run(run, recipe, {"path": str(folder), "digest": dataset.digest}, "baseline")
    config = NetworkConfig("test_resnet", {}, None, (0.5,) * 3, (0.5,) * 3, "synthetic", standardised=True)
    network = Network(torch.nn.Identity(), config, features=dimension)
    frozen = Frozen(network, Features(folder, n, dimension), np.zeros(n, np.uint64))
    precision = Precision("fp32", False, "synthetic")
    folds = make_folds(patches, n_folds=5, inner_folds=5)
    return RunContext(recipe, dataset, folds, run, World(0, 1, torch.device("cpu")), precision, 0, frozen=frozen)


if __name__ == "__main__":
    main()
