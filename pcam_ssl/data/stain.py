"""Stain clusters: slides that look alike, and stand-ins for slides where none are named. No torch."""

import numpy as np
import pandas as pd

SLIDE_STATISTICS = ["od_r", "od_g", "od_b", "stain_h", "stain_e"]
PATCH_STATISTICS = [*SLIDE_STATISTICS, "brightness"]


def cluster(features: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """K-means cluster [N] of standardised features [N, D]; at most as many clusters as distinct rows."""
    from sklearn.cluster import KMeans

    features = np.asarray(features, dtype=np.float64)
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    n_clusters = min(n_clusters, len(np.unique(features, axis=0)))
    return KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(features)


def slide_clusters(rows: pd.DataFrame, groups: pd.Series, n_clusters: int, seed: int) -> pd.Series:
    """Stain cluster of each group: k-means of the mean optical density and stain of its patches, indexed by group."""
    means = rows[SLIDE_STATISTICS].groupby(groups.to_numpy()).mean()
    return pd.Series(cluster(means.to_numpy(), n_clusters, seed), index=means.index)


def proxy_groups(rows: pd.DataFrame, n_clusters: int, seed: int) -> pd.Series:
    """A stain cluster for each patch, as text, to stand in for the unknown slide.

    Patches with the same pixels (`pixel_hash`) are clustered as one, so an exact copy never leaves its group.
    """
    distinct = rows.drop_duplicates("pixel_hash")
    numbers = cluster(distinct[PATCH_STATISTICS].to_numpy(), n_clusters, seed)
    of_hash = pd.Series([f"stain-{number:02d}" for number in numbers], index=distinct["pixel_hash"], dtype="str")
    return pd.Series(of_hash.loc[rows["pixel_hash"]].to_numpy(), index=rows.index, dtype="str")
