"""How far slides differ in stain, and how far the views of a policy move it, as standard deviations of each stain's amount.

python scripts/view_spread.py data/kaggle-mini
"""

import argparse
from pathlib import Path

import numpy as np

from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.images import OPTICAL_DENSITY, UNMIX
from pcam_ssl.data.views import Views

TISSUE = 0.05
"""Optical density (base 10, mean of the colours) above which a pixel is tissue."""
STAINS = ("hematoxylin", "eosin", "residual")


def tissue_stains(pixels: np.ndarray) -> np.ndarray:
    """Mean amount of each stain `[3]` over the tissue pixels of uint8 `[..., 3]`."""
    density = OPTICAL_DENSITY[pixels.reshape(-1, 3)]
    return density[density.mean(axis=1) > TISSUE].mean(axis=0) @ UNMIX


def slide_stains(dataset: Dataset) -> np.ndarray:
    """Mean amounts `[slides, 3]` in the tissue of each slide."""
    pixels, slides = np.asarray(dataset.pixels), dataset.patches.dropna(subset="wsi").groupby("wsi")
    return np.stack([tissue_stains(pixels[rows.row.to_numpy()]) for _, rows in slides])


def full_patches(pixels: np.ndarray, share: float = 0.95) -> np.ndarray:
    """The patches that are tissue nearly everywhere: what a view does to their mean is what it does to tissue."""
    return pixels[[(OPTICAL_DENSITY[patch].mean(axis=2) > TISSUE).mean() > share for patch in pixels]]


def view_spread(views: Views, patches: np.ndarray, draws: int) -> np.ndarray:
    """Standard deviation `[3]` of the amounts over `draws` views of a patch, root mean square over patches."""
    variance = [
        np.var([OPTICAL_DENSITY[views(patch, (0, n, draw))].mean(axis=(0, 1)) @ UNMIX for draw in range(draws)], axis=0, ddof=1)
        for n, patch in enumerate(patches)
    ]
    return np.sqrt(np.mean(variance, axis=0))


def background(views: Views, draws: int, level: int = 245) -> int:
    """The darkest median colour of `draws` views of a white patch."""
    white = np.full((96, 96, 3), level, np.uint8)
    return int(min(np.median(views(white, (1, draw)), axis=(0, 1)).min() for draw in range(draws)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--draws", type=int, default=64)
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    stains = slide_stains(dataset)
    generator = np.random.default_rng(0)
    patches = full_patches(np.asarray(dataset.pixels))
    patches = patches[generator.permutation(len(patches))[: options.patches]]
    print(f"| {options.data.name} | {' | '.join(STAINS)} | darkest white 245 |\n|---|---|---|---|---|")
    _row(f"mean of {len(stains)} slides", stains.mean(axis=0))
    _row("spread between slides", stains.std(axis=0, ddof=1))
    for policy in ("standard", "strong"):
        views = Views(policy)
        _row(f"spread of `{policy}` views", view_spread(views, patches, options.draws), background(views, 1000))


def _row(name: str, values: np.ndarray, last: object = "") -> None:
    print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} | {last} |")


if __name__ == "__main__":
    main()
