"""How many anchors of a slide-aware batch get a triplet from `batch_hard`: mined among the allowed pairs, and mined first and dropped after.

python scripts/mined_anchors.py data/kaggle-mini

Batches are those of the paired plan; embeddings are of unit length and drawn at random, with a part that a patch's slide shares, as a young
network's. Prints markdown.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_metric_learning.miners import BatchHardMiner
from torch.nn import functional

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.plans import ClassesBySlide
from pcam_ssl.methods.metric import mine, slide_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=500)
    options = parser.parse_args()
    rows = labelled_rows(open_dataset(options.dataset).patches)
    labels, slides = rows.label.to_numpy(np.int64), pd.factorize(rows.wsi)[0]
    plan = ClassesBySlide(labels, slides, options.batch, seed=0, paired=True)
    print("| slide's share of an embedding | mined first, dropped after | mined among the allowed |\n|---|---|---|")
    for share in (0.0, 0.5, 1.0):
        shares = np.mean([anchored(labels, slides, plan.batch(step), share, step) for step in range(options.batches)], axis=0)
        print(f"| {share:g} | {1 - shares[0]:.0%} without a triplet | {1 - shares[1]:.0%} |")


def anchored(labels: np.ndarray, slides: np.ndarray, index: np.ndarray, share: float, step: int) -> tuple[float, float]:
    """The share of anchors with a triplet by either way, of those that may have one."""
    generator = torch.Generator().manual_seed(step)
    label, slide = torch.from_numpy(labels[index]), torch.from_numpy(slides[index])
    own = torch.randn(len(index), 64, generator=generator)
    embedding = functional.normalize(own + share * torch.randn(slide.max() + 1, 64, generator=generator)[slide], dim=1)
    positive, negative = slide_masks(label, slide)
    able = int((positive.any(1) & negative.any(1)).sum())
    anchor, near, far = BatchHardMiner()(embedding, label)
    dropped = int((positive[anchor, near] & negative[anchor, far]).sum())
    return dropped / able, len(mine(embedding, positive, negative, {"miner": "batch_hard"})[0]) / able


if __name__ == "__main__":
    main()
