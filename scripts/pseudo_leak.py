"""How much does pooling raise the out-of-fold score? Pooled pseudo-labels, whose out-of-fold scores pcam-ssl withholds, against fold-pure ones.

python scripts/pseudo_leak.py data/pcam-mini --out runs/pseudo-leak --seeds 0 1 --figure docs/leak.svg

The train split is cut into folds and most of its labels are hidden. The valid split, on whose labels no fold is trained, becomes the test split: its
labels are used for scoring only. A score is the mean over folds of the AUROC of fold K's network, on fold K's slides and on the held-out ones. The
withheld score is computed here and nowhere in the package.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.data.dataset import PIXELS, Dataset, is_dataset, open_dataset
from pcam_ssl.data.folds import fold_unit, labelled_rows, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.files import write_text
from pcam_ssl.models.artefact import load_trained
from pcam_ssl.models.inference import PLAIN, predict_logits
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.run import Run

SETTINGS = ("cv.scheme=grouped", "cv.folds=3", "score.floor=false", "score.resamples=200", "predict.d4=false")
ROUNDS = (
    "pseudo.headroom=false",
    "pseudo.planted_share=0",
    "pseudo.control=false",
    "pseudo.stop_worse=false",
    "pseudo.stop_ratio=null",
    "pseudo.stop_flips=null",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="pseudo-label")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--set", nargs="*", action="extend", default=[])
    options = parser.parse_args()
    dataset = valid_as_test(open_dataset(options.data), options.out / "dataset")
    rows = [row for seed in options.seeds for row in compare(options, dataset, seed)]
    table = pd.DataFrame(rows)
    print("| training | seed | AUROC out of fold | AUROC on held-out slides | difference |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['way']} | {row['seed']} | {row['out_of_fold']:.3f} | {row['held_out']:.3f} | {row['out_of_fold'] - row['held_out']:+.3f} |"
        )
    if options.figure:
        write_text(options.figure, figure(table))


def valid_as_test(dataset: Dataset, path: Path) -> Path:
    """A copy of the dataset whose valid split is called test; its labels are kept, for scoring."""
    if not is_dataset(path):
        patches = dataset.patches
        with DatasetWriter(path, dataset.size_px, source=str(dataset.path), source_format="a copy, valid as test") as writer:
            columns = {name: patches[name].array for name in ("wsi", "x", "y")}
            columns |= {
                "ids": patches.id.array,
                "labels": patches.label.array,
                "split": patches.split.replace("valid", "test").array,
            }
            writer.append(np.asarray(dataset.pixels), **columns)
    return path


def compare(options, data: Path, seed: int) -> list[dict]:
    """Round 0, fold-pure rounds and pooled rounds of one seed: their AUROC out of fold and on held-out slides."""
    folder = options.out / f"seed-{seed}"
    recipe = load_recipe(options.recipe, [f"seed={seed}", *SETTINGS, *options.set])
    start = baseline(recipe, data, folder / "start")
    ways = {"labels alone": start}
    for name, pooled in (("fold-pure pseudo-labels", False), ("pooled pseudo-labels", True)):
        verdict = pseudo_label(start.path, options.rounds, settings=ROUNDS, out=folder / name.split()[0], pooled=pooled)
        ways[name] = Run(Path(verdict["rounds"][-1]["folder"]))
    return [{"way": name, "seed": seed, **scores(run, open_dataset(data))} for name, run in ways.items()]


def scores(run: Run, dataset: Dataset) -> dict[str, float]:
    """Mean over folds of the AUROC of fold K's network on fold K's slides, and on the test split."""
    folds, rows, found = read_folds(run.paths.folds, dataset.patches), labelled_rows(dataset.patches), []
    for k in range(folds.n_folds):
        trained = load_trained(run.fold(k))
        parts = rows[fold_unit(folds, k).score], dataset.patches[dataset.patches.split == "test"]
        found.append([_auroc(trained, dataset, part) for part in parts])
    out_of_fold, held_out = np.mean(found, axis=0)
    return {"out_of_fold": out_of_fold, "held_out": held_out}


def _auroc(trained, dataset: Dataset, part: pd.DataFrame) -> float:
    logits, *_ = predict_logits(
        trained.network,
        Pixels(dataset.path / PIXELS),
        part.row.to_numpy(),
        part.id,
        views=PLAIN,
        batch_size=128,
        precision=trained.precision,
        world=trained.world,
    )
    return roc_auc_score(part.label.astype(int), logits)


def figure(table: pd.DataFrame) -> str:
    """An SVG file of both scores, one row per training: small marks are seeds, large ones their mean."""
    values = table[["out_of_fold", "held_out"]].to_numpy()
    low, high = values.min() - 0.002, values.max() + 0.002
    left, width, row_height = 190, 400, 52

    def place(value: float) -> float:
        return left + width * (value - low) / (high - low)

    def mark(value: float, y: float, radius: int, full: bool) -> str:
        colour = "#1f5fbf" if full else "#b3541e"
        return f'<circle cx="{place(value):.1f}" cy="{y}" r="{radius}" fill="{colour if full else "#fff"}" stroke="{colour}" stroke-width="2"/>'

    parts = [
        text(10, 22, "AUROC out of fold (full, blue) and on held-out slides (hollow, orange)", "start", 13),
        text(10, 40, f"large: mean of {table.seed.nunique()} seeds; small: each seed", "start", 11),
    ]
    for number, (way, rows) in enumerate(table.groupby("way", sort=False)):
        y, out_of_fold, held_out = 80 + row_height * number, rows.out_of_fold.mean(), rows.held_out.mean()
        parts += [
            text(left - 12, y + 4, way, "end"),
            f'<line x1="{left}" x2="{left + width}" y1="{y}" y2="{y}" stroke="#ddd"/>',
            *(mark(value, y - 8, 3, True) for value in rows.out_of_fold),
            *(mark(value, y + 8, 3, False) for value in rows.held_out),
            mark(out_of_fold, y - 8, 6, True),
            mark(held_out, y + 8, 6, False),
            text(place(out_of_fold), y - 18, f"{out_of_fold:.3f}", "middle", 10),
            text(place(held_out), y + 27, f"{held_out:.3f}", "middle", 10),
        ]
    height = 80 + row_height * table.way.nunique()
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 620 {height}" width="620" height="{height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="620" height="{height}" fill="#fff"/>', *parts, "</svg>", ""])


def text(x: float, y: float, words: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{words}</text>'


if __name__ == "__main__":
    main()
