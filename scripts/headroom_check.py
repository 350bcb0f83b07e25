"""Does the forecast before pseudo-label rounds hold? What it says of the hidden labels, against what they bring when they are shown.

Each pair is a run with `data.label_budget` and the same recipe without it, on the same folds:
python scripts/headroom_check.py --data data/kaggle-mini --pairs runs/300-0=runs/all-0 runs/300-1=runs/all-1
"""

import argparse
from pathlib import Path

import numpy as np

from pcam_ssl.data.pool import pool_facts
from pcam_ssl.pseudo_labels.headroom import evidence, fold_units, frozen_context, inner_parts
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.render.format import gain_numbers
from pcam_ssl.runs.run import Run


def row(few: Run, full: Run, data: Path | None) -> tuple[str, bool]:
    """A line of the table, and whether the interval holds what came."""
    rounds = open_rounds(few, None, [], few.path, data)
    context, units = frozen_context(rounds), fold_units(rounds.folds)
    found = evidence(rounds, context, inner_parts(rounds, context.rows.label.to_numpy(np.int64)))
    labels = np.mean([unit.train.sum() for unit in units])
    hidden, pool = (
        np.mean([pool_facts(rounds.dataset, rounds.folds, unit)[name] for unit in units]) for name in ("hidden", "patches")
    )
    forecast, whole = found.ceiling.gain(labels, hidden), found.ceiling.gain(labels, pool)
    before, after = (run.scores["auroc"].value for run in (few, full))
    holds = forecast["low"] <= after - before <= forecast["high"]
    values = (
        few.path.name,
        f"{labels:.0f} + {hidden:.0f}",
        gain_numbers(forecast),
        f"{after - before:+.3f}",
        "yes" if holds else "NO",
    )
    return " | ".join(("", *values, gain_numbers(whole), f"{found.ceiling.resolvable:.3f}", "")).strip(), holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where the runs' dataset is, if it moved")
    parser.add_argument("--pairs", nargs="+", metavar="FEW=ALL", required=True)
    options = parser.parse_args()
    print("| run | labels + hidden | forecast | came | within | the whole pool | can be seen |\n|---|---|---|---|---|---|---|")
    held = []
    for pair in options.pairs:
        line, holds = row(*(Run(Path(path)) for path in pair.split("=")), options.data)
        print(line, flush=True)
        held.append(holds)
    print(f"{sum(held)} of {len(held)} within the interval")


if __name__ == "__main__":
    main()
