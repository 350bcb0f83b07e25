"""What does a pseudo-label round of metric learning gain where labels fill half of a batch, against hardly any of it? Prints markdown rows.

Before pseudo-labels were drawn apart from labels, every pool patch of unknown slide stood for a slide and labels filled 4 % of a batch on
kaggle-mini; `pseudo.mix=0.96` draws such batches: one label of each class (6 % of a batch of 32). Both arms start from the same round 0 and take as many steps.

python scripts/metric_rounds.py data/kaggle-mini --out runs/metric-rounds --seeds 0 1 2
"""

import argparse
import shutil
import sys
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.cross_validate import metric_train
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.tables import read_table

KINDS = {"oof": "head", "oof-knn": "kNN", "oof-blend": "blend"}
RECIPE = (
    "method.loss=supcon",
    "method.projection=64",
    "cv.refit=false",
    "train.precision=fp32",
    "predict.d4=false",
    "score.floor=false",
    "score.resamples=200",
)
# The whole pool joins, so that the arms differ in how it is drawn and not in what is selected.
ROUND = (
    "pseudo.headroom=false",
    "pseudo.precision=null",
    "pseudo.top_share=1",
    "pseudo.balance=none",
    "pseudo.label=soft",
    "pseudo.planted_share=0",
    "pseudo.control=false",
    "pseudo.stop_share=null",
    "pseudo.stop_ratio=null",
)
BEFORE = "pseudo.mix=0.96"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="metric-smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samples", type=int, default=1024, help="patches of an epoch, in every arm alike")
    parser.add_argument("--mix", default="all", help="pseudo.mix of the second arm")
    parser.add_argument("--round", nargs="*", default=[], help="keys of the pseudo section that change the round of both arms")
    parser.add_argument("--set", nargs="*", action="extend", default=[])
    options = parser.parse_args()
    arms = {"before": (BEFORE,), "after": (f"pseudo.mix={options.mix}",)}
    runs = {(seed, arm): _round(options, seed, arm, more) for seed in options.seeds for arm, more in arms.items()}
    print(
        f"| {options.data.name}, {len(options.seeds)} seeds | round 0 | {BEFORE} | pseudo.mix={options.mix} | second less first |"
    )
    print("|---|---|---|---|---|")
    for name, shown in KINDS.items():
        start, *tables = (_mean_over_seeds(runs, options.seeds, arm, name) for arm in ("round 0", *arms))
        gain = paired_differences(start.label.to_numpy(np.int64), *(each.prob for each in tables), start.wsi, seed=0)["auroc"]
        values = " | ".join(f"{auroc(start.label.to_numpy(np.int64), each.prob):.3f}" for each in (start, *tables))
        print(f"| AUROC, {shown} | {values} | {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) |")
    for seed in options.seeds:
        told = [_auroc(_table(runs, seed, arm, "oof")) for arm in ("round 0", *arms)]
        print(f"| seed {seed}, head | {' | '.join(f'{value:.3f}' for value in told)} | {told[2] - told[1]:+.3f} |")


def _round(options, seed: int, arm: str, more: tuple[str, ...]) -> Path:
    """The folder of a round 0 with one round in it; both arms start from the same round 0, trained once."""
    settings = [*RECIPE, f"train.samples_per_epoch={options.samples}", f"seed={seed}", *options.set]
    start = metric_train(load_recipe(options.recipe, settings), options.data, options.out / f"{seed}-start").path
    folder = options.out / f"{seed}-{arm}"
    if not folder.exists():
        shutil.copytree(start, folder)
    pseudo_label(folder, 1, settings=[*ROUND, *options.round, *more])
    return folder


def _table(runs: dict, seed: int, arm: str, name: str) -> pd.DataFrame:
    folder = runs[seed, "after" if arm == "round 0" else arm]
    return read_table((folder if arm == "round 0" else folder / "round-1") / f"{name}.parquet")[0].set_index("id")


def _mean_over_seeds(runs: dict, seeds: list[int], arm: str, name: str) -> pd.DataFrame:
    """One row a patch: its prob averaged over seeds."""
    tables = [_table(runs, seed, arm, name) for seed in seeds]
    ids = _table(runs, seeds[0], "round 0", "oof").index
    return tables[0].loc[ids].assign(prob=np.mean([table.prob.loc[ids] for table in tables], axis=0)).reset_index()


def _auroc(table: pd.DataFrame) -> float | None:
    return auroc(table.label.to_numpy(np.int64), table.prob)


if __name__ == "__main__":
    main()
