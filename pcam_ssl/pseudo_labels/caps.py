"""Selectors that keep the surest patches of the pool, of a class, a slide, a group of near duplicates. No torch.

They take and return what those of `patchwise` do; which patch is surer is the `rank` of `sureness.rated`.
"""

import numpy as np
import pandas as pd

from pcam_ssl.data.near_duplicates import NEAR_BITS, near_pairs, view_bits
from pcam_ssl.pseudo_labels.columns import CLASSES
from pcam_ssl.pseudo_labels.selectors import nothing_said
from pcam_ssl.pseudo_labels.sureness import share_of, surest_within


def k_best(pool: pd.DataFrame, stays: np.ndarray, k: int) -> np.ndarray:
    """Keeps the `k` surest of each class."""
    return _capped(pool, stays, pool.called.to_numpy(), k, f"not among the {k} surest of its class (pseudo.k_best)")


def top_share(pool: pd.DataFrame, stays: np.ndarray, share: float) -> np.ndarray:
    """Keeps the surest candidates of either class, at most `share` of the whole pool."""
    most = share_of(share, len(pool))
    words = f"not among the {most} surest, {share:g} of the pool (pseudo.top_share)"
    return _capped(pool, stays, np.zeros(len(pool), dtype=np.int64), most, words)


def slide_cap(pool: pd.DataFrame, stays: np.ndarray, most: int) -> np.ndarray:
    """Keeps the `most` surest of each slide; patches without a slide all stay."""
    codes, _ = pd.factorize(pool.wsi)
    return _capped(pool, stays & (codes >= 0), codes, most, f"its slide has {most} surer patches (pseudo.slide_cap)")


def duplicate_cap(pool: pd.DataFrame, stays: np.ndarray, most: int) -> np.ndarray:
    """Keeps the `most` surest of each group of near duplicates among the candidates.

    A group is what hangs together by pairs of view hashes at most `NEAR_BITS` apart; patches without a hash all stay.
    """
    stays = stays & pool.view_hash.notna().to_numpy()
    groups = np.zeros(len(pool), dtype=np.int64)
    groups[stays] = _near_groups(pool.view_hash[stays])
    return _capped(pool, stays, groups, most, f"has {most} surer near duplicates (pseudo.duplicate_cap)")


def round_cap(pool: pd.DataFrame, stays: np.ndarray, share: float) -> np.ndarray:
    """Keeps at most `share` of the whole pool, the surest of each class, in the ratio that the candidates have."""
    reasons = nothing_said(len(pool))
    most, n = share_of(share, len(pool)), int(stays.sum())
    if n <= most:
        return reasons
    tumor = round(most * int((stays & (pool.called == 1).to_numpy()).sum()) / n)
    for label, kept in ((1, tumor), (0, most - tumor)):
        words = f"a round may add {most} ({share:g} of the pool), of them {kept} {CLASSES[label]} (pseudo.round_cap)"
        reasons += keep_surest(pool, stays, label, kept, words)
    return reasons


def keep_surest(pool: pd.DataFrame, stays: np.ndarray, label: int, kept: int, words: str) -> np.ndarray:
    """Reasons that leave of the candidates called `label` the `kept` surest."""
    of_class = stays & (pool.called == label).to_numpy()
    return _capped(pool, of_class, np.zeros(len(pool), dtype=np.int64), kept, words)


def _capped(pool: pd.DataFrame, stays: np.ndarray, groups: np.ndarray, most: int, words: str) -> np.ndarray:
    reasons = nothing_said(len(pool))
    rows = np.flatnonzero(stays)
    reasons[rows[surest_within(groups[rows], pool["rank"].to_numpy()[rows]) >= most]] = words
    return reasons


def _near_groups(hashes: pd.Series) -> np.ndarray:
    """Number of the group of each hash, int [M]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(hashes):
        return np.empty(0, dtype=np.int64)
    # Once each: thousands of blank patches share one hash, and all their pairs would be listed.
    bits, place = np.unique(view_bits(hashes), return_inverse=True)
    pairs = [(i, j) for i, j, _ in near_pairs(bits, NEAR_BITS)]
    i, j = (np.concatenate(ends) for ends in zip(*pairs, strict=True)) if pairs else (np.empty(0, int), np.empty(0, int))
    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(len(bits), len(bits)))
    return connected_components(graph, directed=False)[1][place]
