"""How alike a pool is to the training slides: patches that look like no training patch, and the share of tumor among all."""

from typing import Any

import numpy as np
from scipy.special import expit

from pcam_ssl.data.pool import SOURCES
from pcam_ssl.evaluation.calibration import fit_calibrator
from pcam_ssl.evaluation.prior_shift import LEAST_TOLD, em_prior, told

QUANTILE = 0.95
EXPECTED = 1 - QUANTILE
"""Share of a pool of the same kind that lies far."""
TOO_MANY = 0.15
"""A larger share is drift. Measured on frozen EfficientNet-Lite0 against 240 labels of kaggle-mini (`docs/pseudo-labels.md`): 0.04 to 0.08 of
Kaggle's test patches, 0.29 and more with a green cast, without colour, out of focus, or of other tissue."""
FEWEST = 100
"""Training patches: with fewer, a handful of one slide decide the quantile. Also patches of a source, for a share of its own."""
RARE = 0.05
"""A class with a smaller share of the pool is said to be all but absent."""
BLOCK = 1024


def far_patches(pool: np.ndarray, training: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Which of `pool` `[P, D]` lie far from every training patch `[N, D]`, bool `[P]`; None with few training patches, or of one group.

    Far: the cosine distance to the nearest training patch is larger than that of `QUANTILE` of the training patches to the nearest patch of
    another of the `groups` `[N]` (slides, or stain clusters where slides are unknown).
    """
    codes = np.unique(groups, return_inverse=True)[1]
    if len(training) < FEWEST or codes.max() == 0:
        return None
    pool, training = _unit(pool), _unit(training)
    between = np.concatenate(
        [
            _nearest(training[begin : begin + BLOCK], training, codes[begin : begin + BLOCK], codes)
            for begin in range(0, len(training), BLOCK)
        ]
    )
    limit = np.quantile(between, QUANTILE)
    far = [_nearest(pool[begin : begin + BLOCK], training) > limit for begin in range(0, len(pool), BLOCK)]
    return np.concatenate(far)


def far_by_source(far: np.ndarray | None, sources: np.ndarray) -> dict[str, float | None]:
    """The share of `far` bool `[P]` by source `[P]`, None for a source of few patches: patches of the training slides must not hide others."""
    shares = dict.fromkeys(SOURCES)
    if far is not None:
        shares |= {name: float(far[sources == name].mean()) for name in SOURCES if (sources == name).sum() >= FEWEST}
    return shares


def _nearest(
    queries: np.ndarray, training: np.ndarray, own: np.ndarray | None = None, codes: np.ndarray | None = None
) -> np.ndarray:
    """Cosine distance of unit `queries` `[n, D]` to the nearest of `training` `[N, D]`, of another group than their `own` `[n]` where given."""
    similarity = queries @ training.T
    if own is not None:
        similarity[own[:, None] == codes] = -np.inf
    return 1 - similarity.max(axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def tumor_share(pool_logits: np.ndarray, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float | None:
    """The share of tumor in a pool, from its logits `[P]` by a head, and that head's cross-fitted `logits` `[N]`, which calibrate it.

    None where the head tells too little of the labels (`prior_shift.told`).
    """
    calibrator = fit_calibrator(logits, labels, groups)
    if told(labels, calibrator.prob(logits)) < LEAST_TOLD:
        return None
    return em_prior(expit(pool_logits / calibrator.temperature), float(np.mean(labels)))


def drift_words(likeness: dict[str, Any]) -> str | None:
    """What was seen, what is expected and what to do, where the pool or a source of it is unlike the training slides; else None."""
    # Earlier versions kept no shares by source.
    sources = {name: share for name, share in likeness.get("far_by_source", {}).items() if share is not None and share > TOO_MANY}
    if not sources and (likeness["far"] is None or likeness["far"] <= TOO_MANY):
        return None
    seen = " and ".join(f"{share:.0%} of its {name} patches" for name, share in sources.items())
    seen = seen or f"{likeness['far']:.0%} of its patches"
    return (
        f"the pool looks unlike the training slides: {seen} lie far from every training patch, where about"
        f" {EXPECTED:.0%} are expected (another scanner, stain, magnification, or blur). Neither the forecast nor the precision check"
        " holds for such patches: look at some of them, and label some of their slides, or leave them out of the dataset"
    )


def tumor_words(likeness: dict[str, Any]) -> str | None:
    """A warning where one class is all but absent from the pool, and is not from the labels; else None."""
    if likeness["tumor"] is None:
        return None
    for name, here, there in (
        ("tumor", likeness["tumor"], likeness["tumor_in_labels"]),
        ("normal tissue", 1 - likeness["tumor"], 1 - likeness["tumor_in_labels"]),
    ):
        if here < RARE and here < there / 3:
            return (
                f"the pool seems to hold almost no {name}: an estimated {here:.1%} of its patches, against {there:.0%} of the labels. Pseudo-labels"
                f" of {name} will mostly be errors; add patches of slides with {name} to the pool"
            )
    return None
