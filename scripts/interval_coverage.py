"""How often a 95 % interval holds the true score: simulated slides with the sizes and tumor shares of a dataset's own.

python scripts/interval_coverage.py data/kaggle-mini

A simulation draws slides with replacement from the dataset's (patches, tumor patches), gives each a shift of its scores and a
separation of its own, and scores it by two networks that agree in most of it. The truth is the score of 20,000 slides. Printed as a
markdown table: coverage of the package's intervals, beside it that of the plain percentiles of the same resamples.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import expit

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.evaluation.bootstrap import _resampled, intervals_and_differences
from pcam_ssl.evaluation.confidence import count_groups
from pcam_ssl.evaluation.metrics import point_scores

SLIDES = (10, 20, 34, 70, 160)
SCORES = {
    "auroc": "AUROC",
    "accuracy": "accuracy (a share)",
    "sensitivity_at_specificity_95": "sensitivity at spec. 0.95",
    "nll": "NLL",
    "ece": "ECE",
}
SHARED = 0.8
"""Of the variance of every effect: what the two networks have in common."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--slides", type=int, nargs="+", default=SLIDES)
    options = parser.parse_args()
    profiles = slide_profiles(options.dataset)
    _, labels, probs = simulated(profiles, 20_000, np.random.default_rng(0))
    first, second = (point_scores(labels, column) for column in probs.T)
    truth = {**{name: first[name] for name in SCORES}, "difference": second["auroc"] - first["auroc"]}
    print(
        f"{len(profiles)} slides of {profiles[:, 0].min()} to {profiles[:, 0].max()} patches, {(profiles[:, 1] > 0).sum()} with tumor; true AUROC {truth['auroc']:.3f}\n"
    )
    print("| slides (effective, rarer class) | interval | " + " | ".join([*SCORES.values(), "difference of two AUROCs"]) + " |")
    print("|---|---|" + "---|" * (len(SCORES) + 1))
    for n_slides in options.slides:
        hit, effective = coverage(profiles, n_slides, truth, options)
        for way in ("percentile", "now"):
            told = " | ".join(f"{np.mean(hit[way][name]):.3f}" for name in truth)
            print(f"| {n_slides} ({effective:.1f}) | {way} | {told} |", flush=True)


def slide_profiles(dataset: Path) -> np.ndarray:
    """Patches and tumor patches of each labelled slide, int [S, 2]."""
    patches = open_dataset(dataset).patches
    known = patches[patches.label.notna() & patches.wsi.notna()]
    return known.groupby("wsi").label.agg(["size", "sum"]).to_numpy().astype(int)


def simulated(profiles: np.ndarray, n_slides: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slide, label [N] and probs [N, 2] of two networks on `n_slides` drawn slides."""

    def effect(n: int) -> np.ndarray:
        return rng.normal(size=(n, 1)) * np.sqrt(SHARED) + rng.normal(size=(n, 2)) * np.sqrt(1 - SHARED)

    sizes, tumors = profiles[rng.integers(len(profiles), size=n_slides)].T
    slides = np.repeat(np.arange(n_slides), sizes)
    labels = (np.arange(len(slides)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(tumors, sizes)).astype(int)
    separation = np.array([2.0, 2.1]) + 0.5 * effect(n_slides)[slides]
    scores = labels[:, None] * separation + 0.7 * effect(n_slides)[slides] + effect(len(slides))
    return slides, labels, expit(1.5 * (scores - 1.2))


def coverage(
    profiles: np.ndarray, n_slides: int, truth: dict[str, float], options
) -> tuple[dict[str, dict[str, list[bool]]], float]:
    """Whether each simulation's interval held the truth, by way and score; and the mean effective slides of the rarer class."""
    hit = {way: {name: [] for name in truth} for way in ("percentile", "now")}
    effective = []
    for number in range(options.simulations):
        slides, labels, probs = simulated(profiles, n_slides, np.random.default_rng([1, n_slides, number]))
        if labels.min() == labels.max() or not (counted := count_groups(slides, labels)).enough:
            continue
        effective.append(counted.effective)
        (found, _), (_, gap) = intervals_and_differences(labels, list(probs.T), slides, options.resamples, number)
        one, two = _resampled(labels, list(probs.T), slides, n_slides, options.resamples, number)
        drawn = {**one, "difference": two["auroc"] - one["auroc"]}
        for name, true in truth.items():
            entry = gap["auroc"] if name == "difference" else found[name]
            low, high = np.nanquantile(drawn[name], [0.025, 0.975])
            hit["now"][name].append(entry["low"] <= true <= entry["high"])
            hit["percentile"][name].append(low <= true <= high)
    return hit, float(np.mean(effective))


if __name__ == "__main__":
    main()
