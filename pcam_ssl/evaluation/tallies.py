"""Counts of patches when whole slides are drawn with replacement (Field and Welsh 2007, cluster bootstrap). No torch.

Whatever needs only counts of patches in a few cells (a confusion matrix, a curve by thresholds, net benefit) is resampled here: the
slides' counts are summed as often as each slide is drawn. `bootstrap` does the same for scores of sorted probs.
"""

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

# Weights of a chunk of resamples, in numbers: 64 MB.
WEIGHTS = 2**23


def resampled_totals(cells, n_cells: int, groups, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Patches in each cell in every resample, float64 [R, C], from the cell of each patch, int [N] in 0..C-1.

    `groups` [N] names the slide of each patch (patches without one count as one slide); None makes every patch a slide of its
    own, which is too narrow where patches share slides. R is 0 where there is one slide only: nothing can be drawn.
    """
    cells, rng = np.asarray(cells, dtype=np.int64), np.random.default_rng(seed)
    n = len(cells)
    if groups is None:
        # Drawing n patches one by one fills the cells by a multinomial law, which is drawn at once.
        shares = np.bincount(cells, minlength=n_cells) / max(n, 1)
        return rng.multinomial(n, shares, size=resamples if n > 1 else 0).astype(np.float64)
    codes, names = pd.factorize(pd.array(groups, dtype="str"), sort=True, use_na_sentinel=False)
    if len(names) < 2:
        return np.empty((0, n_cells))
    counts = csr_array((np.ones(n), (cells, codes)), shape=(n_cells, len(names)))
    totals, step = np.empty((resamples, n_cells)), max(1, WEIGHTS // len(names))
    even = np.full(len(names), 1 / len(names))
    for start in range(0, resamples, step):
        weights = rng.multinomial(len(names), even, size=min(step, resamples - start))
        totals[start : start + step] = (counts @ weights.T.astype(np.float64)).T
    return totals
