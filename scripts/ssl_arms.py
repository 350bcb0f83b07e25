"""Does the pool help where labels are few? Every way of using it on cached features of one frozen backbone, against its own control, paired.

python scripts/ssl_arms.py data/pcam-mini --labels 100 300 1000 3000 --seeds 0 1 2 3 4 --out runs/ssl-arms --set cv.scheme=official
python scripts/ssl_arms.py data/kaggle-mini --slides 14 20 27 --seeds 0 1 2 3 4 --out runs/ssl-arms-slides

A seed draws the labels, or with --slides the slides whose labels are kept (and the folds, where there are several), the same ones for
every arm. Written to OUT: `arms.csv`, with the AUROC of each seed, and `arms.md`, a markdown table of arms and budgets: AUROC (mean of
seeds) and its difference to the control, paired. A difference is the mean over seeds; its interval (95 %) resamples slides, or stain
clusters where no slides are known, the same ones in every arm and seed, and covers the spread over seeds. What is finished is not
trained again.

| arm | what is trained | its control |
|---|---|---|
| supervised | recipe `frozen`: a linear head fitted to the optimum (L-BFGS), C of the lowest cross-fitted loss | |
| all labels | the same on all labels of the training slides: the ceiling | supervised |
| naive | one round: the whole pool, labelled 0 or 1 by the supervised head | supervised |
| rounds, sure | rounds as `pseudo-label` makes them by default: patches beyond the prob at which inner patches prove a precision of 0.98 | supervised |
| rounds, surest quarter | rounds of the most confident quarter of the pool, hard, classes in the ratio of the calibrated probs | supervised |
| rounds, soft | rounds of the whole pool with its calibrated probs | supervised |
| rounds, growing share | rounds of 0 and 1 for the most confident third of each class, then two thirds, then all | supervised |
| label propagation | labels spread on a graph of nearest neighbours of labels and pool | supervised |
| rounds, two opinions | rounds of the whole pool with the calibrated mean of head and label propagation, disagreement lowering the weight | supervised |
| supervised by steps | a linear head trained by AdamW for 20 epochs | supervised |
| supervised, twice the steps | the same for 40 epochs | supervised by steps |
| FixMatch, mean teacher, MixMatch | the same head, optimizer, steps and labels a step, with as many patches of the pool in each step | supervised by steps |
| metric | ArcFace and classifier on a projection, AdamW, 20 epochs | supervised by steps |
| metric, twice the steps | the same for 40 epochs: as many steps as a student of rounds takes | metric |
| metric, rounds | rounds of soft labels of the whole pool, half of each batch, on the metric run | metric, twice the steps |

An L-BFGS head has no number of steps: fitted again on the same labels it is the same head, so supervised is the control of its rounds.
Views are D4 throughout, since a cache holds no other ones by default; FixMatch's strong views are D4 too. Learning rate and epochs of AdamW
and the weights of mean teacher and MixMatch were chosen on inner patches of pcam-mini at 1,000 labels, seed 10.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pcam_ssl.compare.seeds import over_seeds
from pcam_ssl.cross_validation.cross_validate import baseline, metric_train
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

SUPERVISED, BY_STEPS, METRIC, TWICE = "supervised", "supervised by steps", "metric", "metric, twice the steps"
GRAPH = "label propagation"
ADAMW = ("optim.name=adamw", "optim.lr=0.001", "train.epochs=20", "cv.inner_folds=2")
LONGER = (*ADAMW, "train.epochs=40")
ARCFACE = (*ADAMW, "method.name=metric", "cv.refit=false", "neighbours.use=false")
POOL = (*ADAMW, "method.ratio=1")
WHOLE = ("pseudo.precision=null", "pseudo.top_share=1", "pseudo.balance=none")
GROWING = ("pseudo.precision=null", "pseudo.class_share=0.34", "pseudo.balance=none")
SOFT = (*WHOLE, "pseudo.label=soft", "pseudo.mix=0.5")
TWO_OPINIONS = (*SOFT, "pseudo.opinions=head+graph", "pseudo.weight=agreement")
# The measured rounds are those that were asked for, whatever the stop rules would say.
NO_STOPS = (
    "pseudo.headroom=false",
    "pseudo.planted_share=0",
    "pseudo.stop_worse=false",
    "pseudo.stop_ratio=null",
    "pseudo.stop_flips=null",
)


@dataclass(frozen=True)
class Arm:
    """Settings of a run, or with `start` those of `rounds` rounds on the run of that arm."""

    control: str | None
    settings: tuple[str, ...] = ()
    start: str | None = None
    rounds: int = 0
    table: str = "oof"
    ceiling: bool = False
    """Trained on all labels, once for all budgets."""


ARMS = {
    SUPERVISED: Arm(None),
    "naive": Arm(SUPERVISED, (*WHOLE, "pseudo.label=hard"), SUPERVISED, 1),
    "rounds, sure": Arm(SUPERVISED, (), SUPERVISED, 3),
    "rounds, surest quarter": Arm(SUPERVISED, ("pseudo.precision=null", "pseudo.top_share=0.25"), SUPERVISED, 3),
    "rounds, soft": Arm(SUPERVISED, SOFT, SUPERVISED, 3),
    "rounds, growing share": Arm(SUPERVISED, GROWING, SUPERVISED, 3),
    GRAPH: Arm(SUPERVISED, ("graph.use=true",), table="oof-graph"),
    "rounds, two opinions": Arm(SUPERVISED, TWO_OPINIONS, GRAPH, 1),
    BY_STEPS: Arm(SUPERVISED, ADAMW),
    "supervised, twice the steps": Arm(BY_STEPS, LONGER),
    "FixMatch": Arm(BY_STEPS, (*POOL, "method.name=fixmatch", "method.strong=d4")),
    "mean teacher": Arm(BY_STEPS, (*POOL, "method.name=mean_teacher", "method.strong=d4", "method.weight=1")),
    "MixMatch": Arm(BY_STEPS, (*POOL, "method.name=mixmatch", "method.weight=1")),
    METRIC: Arm(BY_STEPS, ARCFACE),
    TWICE: Arm(METRIC, (*ARCFACE, "train.epochs=40")),
    "metric, rounds": Arm(TWICE, (*WHOLE, "pseudo.label=soft", "pseudo.mix=0.5"), METRIC, 2),
    "all labels": Arm(SUPERVISED, ceiling=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--slides", type=int, nargs="+", help="budgets of slides in place of --labels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--arms", nargs="+", choices=list(ARMS), help="only these arms; what they are compared with or start from is added"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="frozen")
    parser.add_argument("--set", nargs="*", action="extend", default=[], help="settings of every arm")
    options = parser.parse_args()
    names = with_needed(options.arms or list(ARMS))
    budgets = options.slides or options.labels
    tables = [budget_table(options, n, train_arms(options, n, names)) for n in budgets]
    write_tables(options.out, tables)


def with_needed(names: list[str]) -> list[str]:
    """The arms, their controls and the arms that they start from, in the order of the table."""
    wanted, left = set(), list(names)
    while left:
        wanted.add(name := left.pop())
        left += [other for other in (ARMS[name].control, ARMS[name].start) if other is not None and other not in wanted]
    return [name for name in ARMS if name in wanted]


def unit_of(options) -> str:
    """What a budget counts: `slides`, or `labels`."""
    return "slides" if options.slides else "labels"


def train_arms(options, budget: int, names: list[str]) -> dict[str, dict[int, Path]]:
    """The run folder of each arm and seed. An arm that its folds refuse, such as one with too few labels for a batch, is left out with the reason."""
    runs: dict[str, dict[int, Path]] = {}
    for name in names:
        runs[name] = {}
        for seed in options.seeds:
            try:
                runs[name][seed] = train_arm(options, budget, name, seed, runs)
            except UserError as error:
                print(f"{budget} {unit_of(options)}, {name}: left out ({error})", file=sys.stderr)
                del runs[name]
                break
    return runs


def train_arm(options, budget: int, name: str, seed: int, runs: dict) -> Path:
    """The run of an arm at one seed, trained where it is not finished: for rounds, the last round that was made."""
    arm = ARMS[name]
    unit = unit_of(options)
    kept = f"all-{unit}" if arm.ceiling else f"{budget}-{unit}"
    folder = options.out / kept / f"seed-{seed}" / name.replace(", ", "-").replace(" ", "-")
    if arm.start is None:
        key = "data.slide_budget" if options.slides else "data.label_budget"
        common = [f"seed={seed}", "score.floor=false", f"{key}={'null' if arm.ceiling else budget}", *options.set]
        recipe = load_recipe(options.recipe, [*common, *arm.settings])
        train: Callable = metric_train if recipe.method.name == "metric" else baseline
        return train(recipe, options.data, folder).path
    if arm.start not in runs:
        raise UserError(f"{arm.start} is left out, and it starts from there")
    if not (folder / "rounds.json").exists():
        pseudo_label(runs[arm.start][seed], arm.rounds, settings=[*NO_STOPS, *arm.settings], out=folder)
    return Path(read_json(folder / "rounds.json")["rounds"][-1]["folder"])


def budget_table(options, budget: int, runs: dict[str, dict[int, Path]]) -> list[dict]:
    """A row for each arm: AUROC by seed, and the paired difference to its control."""
    first = read_table(runs[SUPERVISED][options.seeds[0]] / "oof.parquet")[0]
    folds = read_table(Run(runs[SUPERVISED][options.seeds[0]]).paths.folds)[0].set_index("id")
    labels, slides = first.label.to_numpy(np.int64), folds.group.loc[first.id].to_numpy()
    probs = {
        name: {
            seed: read_table(path / f"{ARMS[name].table}.parquet")[0].set_index("id").prob.loc[first.id].to_numpy()
            for seed, path in by_seed.items()
        }
        for name, by_seed in runs.items()
    }
    rows = []
    for name, by_seed in probs.items():
        control = ARMS[name].control
        against = over_seeds(labels, [probs[control], by_seed], slides)[1][1]["auroc"] if control in probs else None
        values = [over_seeds(labels, [{seed: each}], None, resamples=2)[0][0]["auroc"]["value"] for seed, each in by_seed.items()]
        rows.append(
            {
                "data": options.data.name,
                "budget": budget,
                "unit": unit_of(options),
                "arm": name,
                "seeds": " ".join(map(str, by_seed)),
                "auroc": np.mean(values),
                "auroc_by_seed": " ".join(f"{value:.4f}" for value in values),
                "control": control or "",
                "difference": "" if against is None else against["value"],
                "low": "" if against is None else against["low"],
                "high": "" if against is None else against["high"],
            }
        )
    return rows


def write_tables(out: Path, tables: list[list[dict]]) -> None:
    """All rows as `arms.csv`, and one markdown table as `arms.md`, which is also printed."""
    with (out / "arms.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(tables[0][0]))
        writer.writeheader()
        writer.writerows(row for rows in tables for row in rows)
    text = markdown(tables)
    (out / "arms.md").write_text(text, encoding="utf-8")
    print(text)


def markdown(tables: list[list[dict]]) -> str:
    """A row for each arm, a column for each budget: AUROC, and the difference to the control with its interval."""
    first = [rows[0] for rows in tables]
    names = [name for name in ARMS if any(row["arm"] == name for rows in tables for row in rows)]
    cells = {(row["budget"], row["arm"]): cell(row) for rows in tables for row in rows}
    budgets = [f"{row['budget']:,} {row['unit']}" for row in first]
    lines = [f"| {first[0]['data']} | control | {' | '.join(budgets)} |", "|---|---|" + "---|" * len(tables)]
    for name in names:
        each = [cells.get((row["budget"], name), "left out") for row in first]
        lines.append(f"| {name} | {ARMS[name].control or ''} | {' | '.join(each)} |")
    return "\n".join(lines) + "\n"


def cell(row: dict) -> str:
    """One arm at one budget."""
    if not row["control"]:
        return f"{row['auroc']:.3f}"
    return f"{row['auroc']:.3f}; {row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"


if __name__ == "__main__":
    main()
