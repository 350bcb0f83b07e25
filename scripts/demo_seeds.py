"""Does the story of `pcam-ssl demo` hold on other slides? Takes the tour once a seed; prints a line each, then how often each statement holds.

python scripts/demo_seeds.py --out runs/demo-seeds --seeds 0 1 2 3 4 5 6 7 8 9

A seed draws the slides, the folds, the first weights and the batches. Statements: leak, random folds keep less on held-out slides than the
lower end of what they promise; grouped, what grouped folds keep is inside the interval of what they promise; neighbours, kNN in the metric
embedding is not measurably worse than the head of the grouped run; round, at least 200 patches are added and the gain is above zero by its
interval. What is finished is not trained again.
"""

import argparse
import time
from pathlib import Path

from pcam_ssl.demo.report import added, rows, statements
from pcam_ssl.demo.tour import take_tour
from pcam_ssl.render.format import gain_numbers, interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    options = parser.parse_args()
    held = {}
    for seed in options.seeds:
        begun = time.process_time()
        tour = take_tour(options.out / f"seed-{seed}", seed=seed)
        held[seed] = statements(tour)
        print(
            f"seed {seed}: {seed_line(tour)}; {time.process_time() - begun:.0f} s of CPU; fails: {failed(held[seed])}", flush=True
        )
    for name in next(iter(held.values())):
        print(f"{name}: holds in {sum(each[name] for each in held.values())} of {len(held)}")


def seed_line(tour) -> str:
    """Promised and kept AUROC of each row of the table, and what the round added."""
    scores = [
        f"{key} {interval(row.promised)}" + ("" if row.kept is None else f" keeps {row.kept['value']:.3f}")
        for key, row in rows(tour).items()
    ]
    made = added(tour)
    if made is None:
        return "; ".join([*scores, f"no round ({tour.verdict['stopped']})"])
    return "; ".join([*scores, f"{made.patches} added, precision {interval(made.precision)}, gain {gain_numbers(made.gain)}"])


def failed(held: dict[str, bool]) -> str:
    return ", ".join(name for name, holds in held.items() if not holds) or "nothing"


if __name__ == "__main__":
    main()
