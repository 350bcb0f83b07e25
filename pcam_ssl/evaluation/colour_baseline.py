"""Colour baseline: boosted trees on colour histograms, trained and scored in the same folds as the networks."""

import numpy as np
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

BINS = 32
CHANNELS = 6  # red, green, blue, hue, saturation, value
MOST_TRAINING_ROWS = 20_000


def colour_histograms(pixels: np.ndarray, rows) -> np.ndarray:
    """Colour histograms of patches, float32 [N, 192]: the share of pixels in 32 bins of each of R, G, B, H, S, and V.

    `pixels` uint8 [P, H, W, 3] RGB may be memory-mapped. The patches `rows` [N] are read one at a time.
    """
    area = pixels.shape[1] * pixels.shape[2]
    features = np.empty((len(rows), CHANNELS * BINS), dtype=np.float32)
    for place, row in enumerate(rows):
        patch = Image.fromarray(pixels[row])
        counts = np.array(patch.histogram() + patch.convert("HSV").histogram())
        features[place] = counts.reshape(CHANNELS * BINS, -1).sum(axis=1) / area
    return features


def colour_baseline_predictions(train_features: np.ndarray, train_labels, features: np.ndarray, seed: int) -> np.ndarray:
    """Prob of class 1, float64 [N], of `features` [N, F], from trees fitted on `train_features` [M, F] and labels [M].

    Of more than 20,000 training rows, 20,000 are drawn by position, independent of ids and labels. Where all labels are of one
    class, every prob is that class: 0 or 1.
    """
    train_labels = np.asarray(train_labels).astype(np.int64)
    if len(train_labels) > MOST_TRAINING_ROWS:
        kept = np.sort(np.random.default_rng(seed).choice(len(train_labels), MOST_TRAINING_ROWS, replace=False))
        train_features, train_labels = train_features[kept], train_labels[kept]
    if train_labels.min() == train_labels.max():
        return np.full(len(features), float(train_labels[0]))
    # No early stopping: it would hold out random patches of slides that are also trained on.
    trees = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.1, early_stopping=False, random_state=seed)
    # One thread: OpenMP threads wait by spinning, and on 2 busy cores 1,000 rows took 72 s instead of 1.6 s.
    with threadpool_limits(1):
        return trees.fit(train_features, train_labels).predict_proba(features)[:, 1]


def colour_baseline_oof(pixels: np.ndarray, rows, labels, train_masks, score_masks, seed: int) -> np.ndarray:
    """Out-of-fold prob of class 1 by the colour baseline, float64 [N]; NaN for a patch that no fold scores.

    `rows` [N] index `pixels` uint8 [P, H, W, 3]. `labels` [N] are 0 or 1 on training patches. Fold k trains on the patches of
    `train_masks[k]` (bool [N]) and scores those of `score_masks[k]`.
    """
    labels = np.asarray(labels)
    features = colour_histograms(pixels, rows)
    probs = np.full(len(labels), np.nan)
    for train, score in zip(train_masks, score_masks, strict=True):
        probs[score] = colour_baseline_predictions(features[train], labels[train], features[score], seed)
    return probs
