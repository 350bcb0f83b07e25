"""How often "95 %" holds, and how often equal recipes differ "measurably", by the way seeds are counted. Prints markdown.

python scripts/seed_coverage.py

Two equal recipes are drawn many times: their difference in a share (as accuracy) is a slide's, a seed's and their own together. Ways:
one seed of each, slides resampled; slides and seeds resampled together (percentiles); the sum of both variances with Student's t
(`pcam_ssl.compare.seeds`). The seed's standard deviation is given as a share of the slides' standard error.
"""

import argparse

import numpy as np

from pcam_ssl.compare.seeds import Seeded, difference
from pcam_ssl.evaluation.confidence import Groups

RATIOS = (0.0, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--slides", type=int, nargs="+", default=[20, 34, 160])
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 8])
    options = parser.parse_args()
    print("| slides | seeds | seed over slides | one seed | resampled together | both variances, Student's t |")
    print("|---|---|---|---|---|---|")
    for n_slides in options.slides:
        for n_seeds in options.seeds:
            for ratio in RATIOS:
                rng = np.random.default_rng([n_slides, n_seeds, int(10 * ratio)])
                held = np.mean([trial(rng, n_slides, n_seeds, ratio) for _ in range(options.trials)], axis=0)
                print(f"| {n_slides} | {n_seeds} | {ratio:g} | " + " | ".join(f"{share:.3f}" for share in held) + " |")


def trial(rng: np.random.Generator, n_slides: int, n_seeds: int, ratio: float, resamples: int = 400) -> list[bool]:
    """Whether the interval of each way holds the true difference, 0."""
    slide = rng.normal(size=n_slides)
    seed = ratio / np.sqrt(n_slides) * rng.normal(size=(n_seeds, 1))
    gaps = slide + seed + 0.7 * rng.normal(size=(n_seeds, n_slides))  # [seeds, slides]
    weights = rng.multinomial(n_slides, [1 / n_slides] * n_slides, size=resamples) / n_slides
    drawn = weights @ gaps.T  # [resamples, seeds]
    chosen = rng.integers(n_seeds, size=(resamples, n_seeds))
    together = np.take_along_axis(drawn, chosen, axis=1).mean(axis=1)
    seeds = tuple(range(n_seeds))
    none, found = Seeded(seeds, np.zeros(n_seeds), np.zeros(resamples)), Seeded(seeds, gaps.mean(axis=1), drawn.mean(axis=1))
    summed = difference(none, found, Groups(n_slides, n_slides, float(n_slides)))
    ends = [np.quantile(drawn[:, 0], [0.025, 0.975]), np.quantile(together, [0.025, 0.975]), (summed["low"], summed["high"])]
    return [low <= 0 <= high for low, high in ends]


if __name__ == "__main__":
    main()
