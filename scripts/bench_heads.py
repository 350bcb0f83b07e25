"""Time and memory of linear heads on many cached features: 5 folds with their inner folds on synthetic features of one view.

python scripts/bench_heads.py [--patches 262144] [--dimension 1536]
The features are drawn, not computed; all else is what `pcam-ssl baseline` does with a frozen backbone, without the aggregation of the run.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.fold import train_unit
from pcam_ssl.cross_validation.frozen import Frozen
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.features import Features
from pcam_ssl.data.folds import fold_unit
from pcam_ssl.data.splits import make_folds
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.models.network import Network, NetworkConfig
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.run import Run, begin_run
from pcam_ssl.tables import read_predictions

SLIDES = 200
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
    parser.add_argument("--patches", type=int, default=262_144)
    parser.add_argument("--dimension", type=int, default=1_536)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        context = synthetic(Path(folder), options.patches, options.dimension)
        begun = time.perf_counter()
        for k in range(context.folds.n_folds):
            train_unit(context, fold_unit(context.folds, k))
        seconds = time.perf_counter() - begun
        oof = pd.concat(read_predictions(context.run.fold(k) / "oof.parquet") for k in range(context.folds.n_folds))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{options.patches:,} x {options.dimension:,}: 5 folds, 5 inner folds each, 7 values of C, in {seconds:.0f} s on {torch.get_num_threads()} threads"
    )
    print(
        f"peak of memory {peak_gb:.1f} GB (with the mapped file of features); AUROC {auroc(oof.label.to_numpy(int), oof.prob.to_numpy()):.3f}"
    )


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
