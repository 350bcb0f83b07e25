"""What a fold's temperature does to the scores of all folds together: none, maximum likelihood, and shrunk as it ships. Prints markdown.

python scripts/calibration.py data/kaggle-mini --out runs/calibration --seeds 0 1 2 3 4 5 6 7

One baseline a seed (its folds differ too); every way calibrates the same logits from the same inner slides. Differences to T = 1 are
means over seeds, paired, the same slides resampled for all seeds.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.evaluation.bootstrap import _resampled
from pcam_ssl.evaluation.calibration import fit_temperature
from pcam_ssl.evaluation.confidence import PLAIN, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.metrics import point_scores
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

SCORES = {"auroc": "AUROC, pooled", "nll": "NLL", "ece": "ECE"}
WITHOUT_PRIOR = 10**9
RECIPE = ("score.floor=false", "score.resamples=200")
RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="baseline")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--set", nargs="*", action="extend", default=[])
    options = parser.parse_args()
    tables = []
    for seed in options.seeds:
        settings = [*RECIPE, f"seed={seed}", *options.set]
        tables.append(calibrated(baseline(load_recipe(options.recipe, settings), options.data, options.out / f"seed-{seed}")))
    print(
        "| temperature of a fold | "
        + " | ".join(f"{name} | against T = 1" for name in SCORES.values())
        + " | lowest to highest T |"
    )
    print("|---|" + "---|---|" * len(SCORES) + "---|")
    drawn = [_drawn(table) for table in tables]
    for way in ("none", "likelihood", "shrunk"):
        cells = []
        for name in SCORES:
            value = np.mean([point_scores(table.label, table[way])[name] for table in tables])
            gain = np.mean([each[way][name] - each["none"][name] for each in drawn], axis=0)
            base = np.mean([point_scores(table.label, table["none"])[name] for table in tables])
            cells += [f"{value:.4f}", "" if way == "none" else _interval(value - base, gain, tables[0])]
        temperatures = pd.concat([table[f"{way}_t"] for table in tables])
        print(f"| {NAMES[way]} | {' | '.join(cells)} | {temperatures.min():.2f} to {temperatures.max():.2f} |")
    within = [np.mean([point_scores(rows.label, rows["none"])["auroc"] for _, rows in table.groupby("fold")]) for table in tables]
    print(f"\nMean of the AUROCs within folds, which no temperature moves: {np.mean(within):.4f}")


NAMES = {"none": "T = 1", "likelihood": "maximum likelihood (before)", "shrunk": "shrunk, as it ships"}


def calibrated(run: Run) -> pd.DataFrame:
    """Out-of-fold rows with the prob by each way (its name) and the temperature behind it (`_t`)."""
    parts = []
    for fold, rows in read_table(run.path / "oof.parquet")[0].groupby("fold"):
        inner = read_table(run.fold(fold) / "inner.parquet")[0]
        logits, labels = inner.logit.to_numpy(), inner.label.to_numpy(np.int64)
        found = {"none": 1.0}
        found["likelihood"] = fit_temperature(logits, labels, WITHOUT_PRIOR)
        found["shrunk"] = fit_temperature(logits, labels, inner.wsi.nunique())
        probs = {way: expit(rows.logit / t) for way, t in found.items()}
        parts.append(rows.assign(**probs, **{f"{way}_t": t for way, t in found.items()}))
    table = pd.concat(parts).sort_values("id", ignore_index=True)
    return table.assign(label=table.label.to_numpy(np.int64))


def _drawn(table: pd.DataFrame) -> dict[str, dict[str, np.ndarray]]:
    ways, codes = list(NAMES), group_codes(table.wsi, len(table))
    scores = _resampled(table.label.to_numpy(), [table[way] for way in ways], codes, table.wsi.nunique(), RESAMPLES, 0)
    return dict(zip(ways, scores, strict=True))


def _interval(value: float, drawn: np.ndarray, table: pd.DataFrame) -> str:
    low, high = student_interval(value, drawn, count_groups(group_codes(table.wsi, len(table)), table.label), PLAIN)
    return f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


if __name__ == "__main__":
    main()
