"""Do rounds or consistency help where labels are few? Every arm under one recipe, same labels, same scored patches, paired. Prints markdown.

python scripts/pseudo_arms.py data/pcam-mini --out runs/pseudo-arms --seeds 0 1 2

Arms: supervised on the labelled, also for as many steps as a round takes; naive pseudo-labels (one round at a fixed uncalibrated 0.95,
classes as they come); rounds of confident pseudo-labels (calibrated 0.95, balanced, hard); rounds of the most confident quarter of the pool
(balanced, hard), which does not depend on the temperature; rounds of soft ones on the whole pool; FixMatch; mean teacher; scikit-learn's self-training on frozen
features; supervised on all labels. Every arm of 1,000 labels but the longer one sees each label equally often; pseudo-labels come on top.
What is finished is not trained again.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.semi_supervised import SelfTrainingClassifier

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.folds import fold_unit, labelled_rows, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.files import read_json
from pcam_ssl.models.artefact import load_trained
from pcam_ssl.models.inference import embed_rows
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

NAIVE = ("pseudo.label=hard", "pseudo.top_share=null", "pseudo.balance=none", "pseudo.noise=same")
CONFIDENT = ("pseudo.label=hard", "pseudo.top_share=null", "pseudo.confidence=0.95", "pseudo.balance=prior", "pseudo.noise=strong")
QUARTER = ("pseudo.label=hard", "pseudo.top_share=0.25", "pseudo.balance=prior", "pseudo.noise=strong")
NO_STOPS = (
    "pseudo.headroom=false",
    "pseudo.planted_share=0",
    "pseudo.control=false",
    "pseudo.stop_worse=false",
    "pseudo.stop_ratio=null",
    "pseudo.stop_flips=null",
)
SUPERVISED, CEILING = "supervised", "all labels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="pseudo-label-scratch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", help="only these arms")
    parser.add_argument("--set", nargs="*", action="extend", default=[], help="settings of every arm")
    parser.add_argument("--ceiling-set", nargs="*", default=[], help="further settings of the arm with all labels")
    options = parser.parse_args()
    tables = {seed: train_arms(options, seed) for seed in options.seeds}
    print(arms_table(tables, read_clusters(options)))
    print(rounds_table(options))


def train_arms(options, seed: int) -> dict[str, pd.DataFrame]:
    """Predictions of the scored patches by each arm."""
    folder = options.out / f"seed-{seed}"
    common = [f"seed={seed}", "score.floor=false", *options.set]
    recipe = load_recipe(options.recipe, common)
    start = baseline(recipe, options.data, folder / SUPERVISED)

    def rounds(name: str, wanted: int, *settings: str) -> Run:
        verdict = pseudo_label(start.path, wanted, settings=[*settings, *NO_STOPS], out=folder / name)
        return Run(Path(verdict["rounds"][-1]["folder"]))

    def consistency(method: str) -> Run:
        shared = [f"train.{key}={json.dumps(getattr(recipe.train, key))}" for key in ("epochs", "samples_per_epoch", "batch_size")]
        return baseline(load_recipe(method, [*common, *shared]), options.data, folder / method)

    def longer() -> Run:
        """As many steps as a round's student takes, half of whose batch is pseudo-labelled."""
        twice = f"train.epochs={2 * recipe.train.epochs}"
        return baseline(load_recipe(options.recipe, [*common, twice]), options.data, folder / "longer")

    def all_labels() -> Run:
        return baseline(
            load_recipe(options.recipe, [*common, "data.label_budget=null", *options.ceiling_set]),
            options.data,
            folder / "all-labels",
        )

    temperature = read_json(start.fold(0) / "fold.json")["calibration"]["temperature"]
    uncalibrated = expit(logit(0.95) / temperature)  # calibrated prob at which the network's own is 0.95
    arms: dict[str, Callable[[], pd.DataFrame]] = {
        SUPERVISED: lambda: scored(start),
        "supervised, twice the steps": lambda: scored(longer()),
        "naive, one round": lambda: scored(rounds("naive", 1, *NAIVE, f"pseudo.confidence={max(uncalibrated, 0.5001)}")),
        "rounds, confident and hard": lambda: scored(rounds("confident", options.rounds, *CONFIDENT)),
        "rounds, most confident quarter, hard": lambda: scored(rounds("quarter", options.rounds, *QUARTER)),
        "rounds, all and soft": lambda: scored(rounds("soft", options.rounds)),
        "FixMatch": lambda: scored(consistency("fixmatch")),
        "mean teacher": lambda: scored(consistency("mean-teacher")),
        "self-training on features": lambda: self_training(start, options.data),
        CEILING: lambda: scored(all_labels()),
    }
    return {name: arm() for name, arm in arms.items() if not options.arms or name in (SUPERVISED, *options.arms)}


def scored(run: Run) -> pd.DataFrame:
    return read_table(run.path / "oof.parquet")[0]


def self_training(start: Run, data: Path) -> pd.DataFrame:
    """scikit-learn's SelfTrainingClassifier on the supervised network's features: labels, and the pool at a prob of 0.95."""
    dataset = open_dataset(data)
    folds = read_folds(start.paths.folds, dataset.patches)
    unit, rows, trained = fold_unit(folds, 0), labelled_rows(dataset.patches), load_trained(start.fold(0))
    parts = {"labelled": rows[unit.train], "pool": pool_rows(dataset, folds, unit), "scored": rows[unit.score]}
    features = {
        name: embed_rows(
            trained.network,
            Pixels(dataset.path / PIXELS),
            part.row.to_numpy(),
            batch_size=128,
            precision=trained.precision,
            world=trained.world,
        )
        for name, part in parts.items()
    }
    labels = np.concatenate([parts["labelled"].label.to_numpy(np.int64), np.full(len(parts["pool"]), -1)])
    model = SelfTrainingClassifier(LogisticRegression(C=10, max_iter=2000), threshold=0.95)
    model.fit(np.concatenate([features["labelled"], features["pool"]]), labels)
    return (
        scored(start)
        .set_index("id")
        .loc[parts["scored"].id]
        .reset_index()
        .assign(prob=model.predict_proba(features["scored"])[:, 1])
    )


def read_clusters(options) -> np.ndarray:
    """What the bootstrap resamples: the groups of the folds."""
    frame = read_table(Run(options.out / f"seed-{options.seeds[0]}" / SUPERVISED).paths.folds)[0]
    return pd.factorize(frame.group[frame.fold >= 0])[0]


def arms_table(tables: dict[int, dict[str, pd.DataFrame]], clusters: np.ndarray, resamples: int = 1000) -> str:
    """AUROC of each arm as the mean over seeds, and its gain over supervised: seeds and clusters are resampled together."""
    seeds, arms = list(tables), list(next(iter(tables.values())))
    first = tables[seeds[0]][SUPERVISED]
    labels = first.label.to_numpy(np.int64)
    probs = {(seed, arm): tables[seed][arm].set_index("id").prob.loc[first.id].to_numpy() for seed in seeds for arm in arms}
    point = {arm: [roc_auc_score(labels, probs[seed, arm]) for seed in seeds] for arm in arms}
    rng, drawn = np.random.default_rng(0), {arm: [] for arm in arms}
    for _ in range(resamples):
        weights = np.bincount(rng.integers(clusters.max() + 1, size=clusters.max() + 1), minlength=clusters.max() + 1)[clusters]
        chosen = rng.choice(seeds, len(seeds))
        for arm in arms:
            drawn[arm].append(np.mean([roc_auc_score(labels, probs[seed, arm], sample_weight=weights) for seed in chosen]))
    lines = ["| arm | AUROC, mean of seeds (each) | against supervised, paired | share of the gap closed |", "|---|---|---|---|"]
    gap = np.mean(point[CEILING]) - np.mean(point[SUPERVISED]) if CEILING in arms else np.nan
    for arm in arms:
        mean = np.mean(point[arm])
        low, high = np.quantile(np.array(drawn[arm]) - np.array(drawn[SUPERVISED]), [0.025, 0.975])
        gain = mean - np.mean(point[SUPERVISED])
        each = ", ".join(f"{value:.3f}" for value in point[arm])
        against = "" if arm == SUPERVISED else f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(f"| {arm} | {mean:.3f} ({each}) | {against} | {'' if arm == SUPERVISED else f'{gain / gap:.2f}'} |")
    return "\n".join(lines)


def rounds_table(options) -> str:
    """Pseudo-labels by arm, round and class, with their precision and coverage: one number a seed."""
    lines = [
        "",
        "| arm, round | class | added | precision | coverage | AUROC of the round |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ("naive", "confident", "quarter", "soft"):
        verdicts = [
            read_json(path) for seed in options.seeds if (path := options.out / f"seed-{seed}" / arm / "rounds.json").exists()
        ]
        for number in range(1, max((len(verdict["rounds"]) for verdict in verdicts), default=1)):
            # A seed whose rounds ended earlier, because too few predictions were confident, has a gap here.
            rows = [verdict["rounds"][number] if number < len(verdict["rounds"]) else None for verdict in verdicts]
            aurocs = ", ".join((row and f"{row['out_of_fold']['auroc']['value']:.3f}") or "-" for row in rows)
            for name in ("tumor", "normal"):
                added = ", ".join((row and f"{row['added'][name]:,}") or "-" for row in rows)
                shares = [", ".join(_share(row, kind, name) for row in rows) for kind in ("precision", "coverage")]
                lines.append(f"| {arm}, {number} | {name} | {added} | {shares[0]} | {shares[1]} | {aurocs} |")
    return "\n".join(lines)


def _share(row: dict | None, kind: str, name: str) -> str:
    value = row and row["truth"][kind][name]["value"]
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
