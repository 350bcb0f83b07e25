"""Inner slides: the share of a fold's training slides that serves every choice made by score. No torch."""

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError

N_CANDIDATES = 64
SEVERAL = 3
"""Inner slides that should hold each class, where training keeps at least twice as many."""


def inner_groups(codes: np.ndarray, labels: np.ndarray, share: float, seed) -> np.ndarray:
    """Codes of the groups to keep inside, from group codes [N] and labels [N] of a fold's visible training rows.

    Of some seeded random draws of whole groups it takes the one that leaves both classes in training and inside, then the one
    with several slides of each class inside (a temperature or threshold from one slide is that slide's), then the one nearest to
    `share` of the rows and to the overall share of tumor. Raises ValueError for fewer than two groups.
    """
    names, codes = np.unique(codes, return_inverse=True)
    if len(names) < 2:
        raise ValueError("fewer than two groups")
    sizes = np.bincount(codes)
    tumors = np.bincount(codes, weights=labels)
    holds = np.stack([tumors < sizes, tumors > 0])  # [2, G] normal, tumor
    generator = np.random.default_rng(seed)
    # Of very many groups any draw is near enough.
    orders = [generator.permutation(len(names)) for _ in range(min(N_CANDIDATES, 1 + 10**6 // len(names)))]
    candidates = [chosen for order in orders for chosen in _draws(order, sizes, share)]
    best = min(candidates, key=lambda chosen: _cost(chosen, sizes, tumors, holds, share))
    return names[best]


def inner_columns(frame: pd.DataFrame, labels: np.ndarray, *, n_folds: int, share: float, seed: int) -> pd.DataFrame:
    """Bool columns `inner_0` .. of a frame with `group`, `fold`, `visible`; `labels` [N] are 0 or 1.

    Fold K's column looks only at visible labels outside fold K. Raises UserError where a fold trains on one group.
    """
    codes, _ = pd.factorize(frame["group"])
    columns = {}
    for fold in range(n_folds):
        training = (frame["fold"] != fold).to_numpy(dtype=bool)
        usable = training & frame["visible"].to_numpy()
        try:
            chosen = inner_groups(codes[usable], labels[usable], share, (seed, fold))
        except ValueError:
            raise UserError(
                f"fold {fold} has {len(np.unique(codes[usable]))} labelled slides to train on, and one more is needed "
                "to choose by; add slides, ask for more folds (cv.folds), or raise data.label_budget"
            ) from None
        columns[f"inner_{fold}"] = training & np.isin(codes, chosen)
    return pd.DataFrame(columns, index=frame.index)


def _draws(order: np.ndarray, sizes: np.ndarray, share: float) -> list[np.ndarray]:
    """The first groups of `order` whose rows come nearest to `share`, and with a few more within twice that: at least one, never all."""
    filled = np.cumsum(sizes[order])[:-1]
    nearest = np.abs(filled - share * sizes.sum()).argmin()
    more = np.searchsorted(filled, 2 * share * sizes.sum(), side="right") - 1 - nearest
    return [order[: nearest + extra + 1] for extra in range(min(max(more, 0), 2 * SEVERAL) + 1)]


def _cost(
    chosen: np.ndarray, sizes: np.ndarray, tumors: np.ndarray, holds: np.ndarray, share: float
) -> tuple[bool, bool, int, float]:
    n_rows, n_tumor = sizes[chosen].sum(), tumors[chosen].sum()
    n_left, n_tumor_left = sizes.sum() - n_rows, tumors.sum() - n_tumor
    imbalance = abs(n_rows / sizes.sum() - share) + abs(n_tumor / n_rows - tumors.sum() / sizes.sum())
    wanted = np.minimum(SEVERAL, holds.sum(axis=1) // 3)
    missing = np.maximum(wanted - holds[:, chosen].sum(axis=1), 0).sum()
    return not 0 < n_tumor_left < n_left, not 0 < n_tumor < n_rows, int(missing), imbalance
