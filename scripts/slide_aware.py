"""Does slide-aware mining help? Same recipe with and without it, same folds and seeds, paired by slide. Prints markdown rows.

python scripts/slide_aware.py data/kaggle-mini --out runs/slide-aware --seeds 0 1 2
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.cross_validate import metric_train
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.resampled_sums import mean_intervals
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.tables import read_table

KINDS = {"oof": "head", "oof-knn": "kNN", "oof-blend": "blend"}
RECIPE = ("method.loss=supcon", "method.projection=64", "cv.refit=false", "score.floor=false", "score.resamples=200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="metric-smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", action="extend", default=[])
    options = parser.parse_args()
    runs = {}
    for seed in options.seeds:
        for aware in ("false", "true"):
            settings = [*RECIPE, f"method.slide_aware={aware}", f"seed={seed}", *options.set]
            runs[seed, aware] = metric_train(
                load_recipe(options.recipe, settings), options.data, options.out / f"{seed}-{aware}"
            ).path
    print(f"| {options.data.name}: score | off | on | on - off, paired by slide |\n|---|---|---|---|")
    for name, shown in KINDS.items():
        off, on = (_mean_over_seeds(runs, options.seeds, aware, name) for aware in ("false", "true"))
        gain = paired_differences(off.label.to_numpy(np.int64), off.prob, on.prob, off.wsi, seed=0)["auroc"]
        values = [_auroc(table) for table in (off, on)]
        print(f"| AUROC, {shown} | {values[0]:.3f} | {values[1]:.3f} | {_interval(gain)} |")
    off, on = (_queries(runs, options.seeds, aware) for aware in ("false", "true"))
    for column, shown in (("precision_at_1_across_slides", "precision@1"), ("map_at_r_across_slides", "MAP@R")):
        difference = (on[column] - off[column]).to_numpy()[:, None]
        gain = mean_intervals(difference, on.wsi)[0]
        print(f"| {shown} across slides | {off[column].mean():.3f} | {on[column].mean():.3f} | {_interval(gain)} |")


def _mean_over_seeds(runs: dict, seeds: list[int], aware: str, name: str) -> pd.DataFrame:
    """One row per patch: its prob averaged over seeds."""
    tables = [read_table(runs[seed, aware] / f"{name}.parquet")[0].set_index("id") for seed in seeds]
    return tables[0].assign(prob=np.mean([table.prob.loc[tables[0].index] for table in tables], axis=0)).reset_index()


def _queries(runs: dict, seeds: list[int], aware: str) -> pd.DataFrame:
    """The retrieval measures of every patch of every seed, in one order for both arms."""
    return pd.concat(
        [read_table(path)[0].dropna() for seed in seeds for path in sorted((runs[seed, aware]).glob("fold-*/retrieval.parquet"))],
        ignore_index=True,
    )


def _auroc(table: pd.DataFrame) -> float:
    from sklearn.metrics import roc_auc_score

    return roc_auc_score(table.label.astype(int), table.prob)


def _interval(gain: dict) -> str:
    return f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


if __name__ == "__main__":
    main()
