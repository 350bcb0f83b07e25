"""Which class a prob calls, and which patch is surer. No torch."""

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.metrics import ROUNDING


def called(probs) -> np.ndarray:
    """The class that each prob calls, int8 [N]: 1 (tumor) at 0.5 or more."""
    return (np.asarray(probs, dtype=np.float64) >= 0.5).astype(np.int8)


def rated(pool: pd.DataFrame) -> pd.DataFrame:
    """The pool with `called` and `rank`: 0 for the surest patch, that is with prob farthest from 0.5.

    A tie is broken by the logit farthest from 0 (probs near 0 and 1 run together), then by id, so that the rank does not depend on
    the order of the rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = {"far": (pool.prob - 0.5).abs(), "logit": pool.logit.abs(), "id": pool.id}
    table = pa.table({name: pa.array(values) for name, values in keys.items()})
    order = pc.sort_indices(table, sort_keys=[("far", "descending"), ("logit", "descending"), ("id", "ascending")]).to_numpy()
    rank = np.empty(len(pool), dtype=np.int64)
    rank[order] = np.arange(len(pool))
    return pool.assign(called=called(pool.prob), rank=rank)


def surest_within(groups, rank) -> np.ndarray:
    """Place of each row within its group, int [M]: 0 for the one of least `rank`; `groups` and `rank` int [M]."""
    groups = np.asarray(groups)
    order = np.lexsort((rank, groups))
    start = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(start, len(groups)))
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(start, sizes)
    return place


def share_of(share: float, n: int) -> int:
    """The most patches that are at most `share` of `n`, in spite of rounding: 0.29 of 100 is 29."""
    return int(share * n + ROUNDING)
