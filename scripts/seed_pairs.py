"""How many pairs of runs that differ in their seed alone are told apart "measurably": no difference is there to be found. Prints markdown.

python scripts/seed_pairs.py runs/calibration/seed-*

A pair counts where the paired, slide-clustered interval of a score leaves out zero. Runs must score the same patches.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np

from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.tables import read_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    options = parser.parse_args()
    tables = [read_table(run / "oof.parquet")[0].sort_values("id", ignore_index=True) for run in options.runs]
    told = [_measurable(one, other) for one, other in combinations(tables, 2)]
    print(f"| {len(told)} pairs of {len(tables)} seeds | differ measurably |\n|---|---|")
    print(f"| in AUROC | {sum('auroc' in names for names in told)} |")
    print(f"| in some score of twelve | {sum(bool(names) for names in told)} |")


def _measurable(one, other) -> set[str]:
    found = paired_differences(one.label.to_numpy(np.int64), one.prob, other.prob, one.wsi, 500)
    return {name for name, entry in found.items() if entry["low"] is not None and not entry["low"] <= 0 <= entry["high"]}


if __name__ == "__main__":
    main()
