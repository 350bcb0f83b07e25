"""How often a fold's temperature lowers the pooled AUROC of a weak model: boosted trees on colour histograms, many draws of folds. Prints markdown.

python scripts/calibration_colour.py data/kaggle-mini --draws 45
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.splits import make_folds
from pcam_ssl.evaluation.calibration import fit_temperature
from pcam_ssl.evaluation.colour_baseline import colour_baseline_predictions, colour_histograms
from pcam_ssl.evaluation.metrics import auroc, nll

WITHOUT_PRIOR = 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--draws", type=int, default=45)
    parser.add_argument("--folds", type=int, default=3)
    options = parser.parse_args()
    dataset = open_dataset(options.dataset)
    rows = labelled_rows(dataset.patches)
    features = colour_histograms(dataset.pixels, rows.row.to_numpy())
    labels, slides = rows.label.to_numpy(np.int64), rows.wsi.to_numpy()
    drawn = []
    for seed in range(options.draws):
        folds = make_folds(dataset.patches, n_folds=options.folds, seed=seed)
        probs = pooled(folds, features, labels, slides, seed)
        drawn.append([(auroc(labels, each), nll(labels, each)) for each in probs])
    drawn = np.array(drawn)  # [draws, ways, 2]
    print(
        f"| {options.draws} draws of {options.folds} folds | AUROC | lower than T = 1 | NLL | higher than T = 1 |\n|---|---|---|---|---|"
    )
    for way, name in enumerate(("T = 1", "maximum likelihood (before)", "shrunk, as it ships")):
        worse = (drawn[:, way, 0] < drawn[:, 0, 0]).sum(), (drawn[:, way, 1] > drawn[:, 0, 1]).sum()
        score, loss = drawn[:, way].mean(axis=0)
        print(f"| {name} | {score:.4f} | {worse[0] if way else ''} | {loss:.4f} | {worse[1] if way else ''} |")


def pooled(folds, features, labels, slides, seed: int) -> np.ndarray:
    """Out-of-fold probs [3, N] by T = 1, maximum likelihood, and the shrunk temperature of each fold."""
    probs = np.empty((3, len(labels)))
    for k in range(folds.n_folds):
        train, inner, score = folds.train_mask(k), folds.inner_mask(k), folds.score_mask(k)
        said = colour_baseline_predictions(features[train], labels[train], features[inner | score], seed)
        logits = np.full(len(labels), np.nan)
        logits[inner | score] = logit(said.clip(1e-15, 1 - 1e-15))
        counts = (WITHOUT_PRIOR, len(set(slides[inner])))
        temperatures = [1.0, *(fit_temperature(logits[inner], labels[inner], n) for n in counts)]
        for way, temperature in enumerate(temperatures):
            probs[way, score] = expit(logits[score] / temperature)
    return probs


if __name__ == "__main__":
    main()
