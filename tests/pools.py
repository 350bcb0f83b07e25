"""Small pools of which every field is known."""

import numpy as np
import pandas as pd
from scipy.special import logit

from pcam_ssl.pseudo_labels.selection import POOL_COLUMNS
from pcam_ssl.pseudo_labels.selectors import ranked_pool
from pcam_ssl.tables import conform


def pool_of(probs, **columns) -> pd.DataFrame:
    """A pool with ids a, b, c... and `probs`; further columns as given, else unknown."""
    n = len(probs)
    plain = {
        "id": [chr(ord("a") + place) for place in range(n)] if n <= 26 else [f"{place:08d}" for place in range(n)],
        "wsi": [None] * n,
        "fold": 0,
        "logit": logit(np.asarray(probs, dtype=float)),
        "prob": probs,
        "view_std": 0.0,
        "knn_prob": np.nan,
        "disagreement": 0.0,
        "view_hash": [None] * n,
    }
    return conform(pd.DataFrame({**plain, **columns}), POOL_COLUMNS)


def rated_of(probs, **columns) -> pd.DataFrame:
    return ranked_pool(pool_of(probs, **columns))


def all_of(pool: pd.DataFrame) -> np.ndarray:
    return np.ones(len(pool), dtype=bool)


def staying(pool: pd.DataFrame, reasons) -> str:
    """The ids without a reason, in one word."""
    return "".join(pool.id[reasons == ""])


def inner_of(n_right: dict[int, int], n_wrong: dict[int, int], slides: int | None = None) -> pd.DataFrame:
    """Inner patches called tumor at prob 0.9 or normal at 0.1, so many right and wrong of each; `slides` in turn, None: unknown."""
    labels, probs = [], []
    for label in (0, 1):
        right, wrong = n_right.get(label, 0), n_wrong.get(label, 0)
        labels += [label] * right + [1 - label] * wrong
        probs += [0.9 if label else 0.1] * (right + wrong)
    names = [f"s{place % slides}" if slides else None for place in range(len(labels))]
    return pd.DataFrame({"label": pd.array(labels, dtype="Int8"), "wsi": pd.array(names, dtype="str"), "prob": probs})
