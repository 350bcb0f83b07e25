"""Selectors of pseudo-labels: confidence, agreement, caps, class balance.

A selector takes the pool as of `ranked_pool` and `stays` bool [N], the candidates so far. It returns reasons, object [N]: why it leaves
out a candidate, and '' for all other patches. `SELECTORS` lists the selectors in the order in which they apply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.duplicates import NEAR_BITS, near_pairs, view_bits
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import ROUNDING, predicted_class
from pcam_ssl.pseudo_labels.thresholds import Threshold, rounded_down
from pcam_ssl.recipe.extensions import SELECTORS as GROUP
from pcam_ssl.recipe.extensions import load_extension
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.tables import CLASSES


def precision(pool: pd.DataFrame, stays: np.ndarray, thresholds: dict[int, Threshold], target: float) -> np.ndarray:
    """Leaves out patches that are not beyond the threshold of their class (`precision_thresholds`)."""
    reasons = no_reasons(len(pool))
    for label, threshold in thresholds.items():
        out = stays & (pool.called == label).to_numpy() & ~threshold.beyond(pool.prob)
        if threshold.prob is None:
            reasons[out] = f"no threshold proves a precision of {target:g} for {CLASSES[label]}{_best(threshold)}"
            continue
        side = "below" if label else "above"
        end = f"is {side} {threshold.prob:.4g}, from where a precision of {target:g} is proven for {CLASSES[label]}"
        give_reason(reasons, out, pool.prob, "prob {:.4g} " + end)
    return reasons


def confidence(pool: pd.DataFrame, stays: np.ndarray, tau: float) -> np.ndarray:
    """Leaves out patches whose prob is from 1 - `tau` to `tau`, both included."""
    reasons = no_reasons(len(pool))
    out = stays & ((pool.prob <= tau) & (pool.prob >= 1 - tau)).to_numpy()
    give_reason(reasons, out, pool.prob, "prob {:.4g} " + f"is between {1 - tau:.4g} and {tau:.4g} (pseudo.confidence)")
    return reasons


def view_std(pool: pd.DataFrame, stays: np.ndarray, most: float) -> np.ndarray:
    """Leaves out patches whose standard deviation of the logit over views is above `most`."""
    reasons = no_reasons(len(pool))
    give_reason(
        reasons,
        stays & (pool.view_std > most).to_numpy(),
        pool.view_std,
        "views differ by {:.4g}, " + f"above {most:g} (pseudo.view_std)",
    )
    return reasons


def agreement(pool: pd.DataFrame, stays: np.ndarray) -> np.ndarray:
    """Leaves out patches on which head and kNN disagree, and those without a kNN prob.

    Raises UserError where no patch of the pool has a kNN prob.
    """
    reasons = no_reasons(len(pool))
    missing = pool.knn_prob.isna().to_numpy()
    if len(pool) and missing.all():
        raise UserError(
            "pseudo.agreement=true needs kNN probs and the round before has none; "
            "start from a run with neighbours.use=true or a metric-train run, or set pseudo.agreement=false"
        )
    reasons[stays & missing] = "kNN gives no prob (pseudo.agreement)"
    differ = (pool.knn_prob >= 0.5).to_numpy() != (pool.called == 1).to_numpy()
    give_reason(reasons, stays & ~missing & differ, pool.knn_prob, "kNN prob {:.4g} calls the other class (pseudo.agreement)")
    return reasons


def no_reasons(n: int) -> np.ndarray:
    """Empty reasons, object [n]."""
    return np.full(n, "", dtype=object)


def give_reason(reasons: np.ndarray, out: np.ndarray, values: pd.Series, words: str) -> None:
    """Write `words`, filled with the row's value, as the reason of the rows `out` bool [N]."""
    reasons[out] = np.array([words.format(value) for value in values.to_numpy()[out].tolist()], dtype=object)


def _best(threshold: Threshold) -> str:
    return "" if threshold.bound is None else f" (best bound {rounded_down(threshold.bound):g})"


def ranked_pool(pool: pd.DataFrame) -> pd.DataFrame:
    """The pool with `called` (the predicted class) and `rank`: 0 for the most confident patch, whose prob is farthest from 0.5.

    Ties are broken by the logit farthest from 0 (probs near 0 and 1 lose digits), then by id, so that the rank does not depend on the
    order of the rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = {"far": (pool.prob - 0.5).abs(), "logit": pool.logit.abs(), "id": pool.id}
    table = pa.table({name: pa.array(values) for name, values in keys.items()})
    order = pc.sort_indices(table, sort_keys=[("far", "descending"), ("logit", "descending"), ("id", "ascending")]).to_numpy()
    rank = np.empty(len(pool), dtype=np.int64)
    rank[order] = np.arange(len(pool))
    return pool.assign(called=predicted_class(pool.prob), rank=rank)


def most_confident_within(groups, rank) -> np.ndarray:
    """Place of each row within its group, int [M]: 0 for the row of lowest `rank`; `groups` and `rank` int [M]."""
    groups = np.asarray(groups)
    order = np.lexsort((rank, groups))
    start = np.flatnonzero(np.diff(groups[order], prepend=-1))
    sizes = np.diff(np.append(start, len(groups)))
    place = np.empty(len(groups), dtype=np.int64)
    place[order] = np.arange(len(groups)) - np.repeat(start, sizes)
    return place


def share_of(share: float, n: int) -> int:
    """The largest number of patches that is at most `share` of `n`, whatever the rounding: 0.29 of 100 is 29."""
    return int(share * n + ROUNDING)


def k_best(pool: pd.DataFrame, stays: np.ndarray, k: int) -> np.ndarray:
    """Keeps the `k` most confident candidates of each class."""
    return _capped(pool, stays, pool.called.to_numpy(), k, f"not among the {k} surest of its class (pseudo.k_best)")


def top_share(pool: pd.DataFrame, stays: np.ndarray, share: float) -> np.ndarray:
    """Keeps the most confident candidates of both classes together, at most `share` of the whole pool."""
    most = share_of(share, len(pool))
    words = f"not among the {most} surest, {share:g} of the pool (pseudo.top_share)"
    return _capped(pool, stays, np.zeros(len(pool), dtype=np.int64), most, words)


def class_share(pool: pd.DataFrame, stays: np.ndarray, share: float, number: int) -> np.ndarray:
    """Keeps the most confident candidates of each class: in round `number`, that many times `share` of the pool's patches called so.

    Curriculum labeling (Cascante-Bonilla et al. 2021, arXiv:2001.06001), which raises the share by 20 % a round. Deviation: the share is
    that of each class, where the paper takes a percentile of all.
    """
    reasons = no_reasons(len(pool))
    grown = min(1.0, number * share)
    for label, name in enumerate(CLASSES):
        most = share_of(grown, int((pool.called == label).sum()))
        words = f"not among the {most} surest of its class, {grown:.3g} of those called {name} (pseudo.class_share, round {number})"
        reasons += keep_most_confident(pool, stays, label, most, words)
    return reasons


def slide_cap(pool: pd.DataFrame, stays: np.ndarray, most: int) -> np.ndarray:
    """Keeps the `most` most confident candidates of each slide; patches of unknown slide all stay."""
    codes, _ = pd.factorize(pool.wsi)
    return _capped(pool, stays & (codes >= 0), codes, most, f"its slide has {most} surer patches (pseudo.slide_cap)")


def duplicate_cap(pool: pd.DataFrame, stays: np.ndarray, most: int) -> np.ndarray:
    """Keeps the `most` most confident candidates of each group of near duplicates.

    A group is a connected component of the pairs whose view hashes differ by at most `NEAR_BITS`; patches without a hash all stay.
    """
    stays = stays & pool.view_hash.notna().to_numpy()
    groups = np.zeros(len(pool), dtype=np.int64)
    groups[stays] = _near_groups(pool.view_hash[stays])
    return _capped(pool, stays, groups, most, f"has {most} surer near duplicates (pseudo.duplicate_cap)")


def round_cap(pool: pd.DataFrame, stays: np.ndarray, share: float) -> np.ndarray:
    """Keeps at most `share` of the whole pool: the most confident of each class, in the class ratio of the candidates."""
    reasons = no_reasons(len(pool))
    most, n = share_of(share, len(pool)), int(stays.sum())
    if n <= most:
        return reasons
    tumor = round(most * int((stays & (pool.called == 1).to_numpy()).sum()) / n)
    for label, kept in ((1, tumor), (0, most - tumor)):
        words = f"a round may add {most} ({share:g} of the pool), of them {kept} {CLASSES[label]} (pseudo.round_cap)"
        reasons += keep_most_confident(pool, stays, label, kept, words)
    return reasons


def keep_most_confident(pool: pd.DataFrame, stays: np.ndarray, label: int, kept: int, words: str) -> np.ndarray:
    """Keeps the `kept` most confident of the candidates called `label`."""
    of_class = stays & (pool.called == label).to_numpy()
    return _capped(pool, of_class, np.zeros(len(pool), dtype=np.int64), kept, words)


def _capped(pool: pd.DataFrame, stays: np.ndarray, groups: np.ndarray, most: int, words: str) -> np.ndarray:
    reasons = no_reasons(len(pool))
    rows = np.flatnonzero(stays)
    reasons[rows[most_confident_within(groups[rows], pool["rank"].to_numpy()[rows]) >= most]] = words
    return reasons


def _near_groups(hashes: pd.Series) -> np.ndarray:
    """The group number of each hash, int [M]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(hashes):
        return np.empty(0, dtype=np.int64)
    # Unique hashes only: thousands of blank patches share one, and all their pairs would be listed.
    bits, place = np.unique(view_bits(hashes), return_inverse=True)
    pairs = [(i, j) for i, j, _ in near_pairs(bits, NEAR_BITS)]
    i, j = (np.concatenate(ends) for ends in zip(*pairs, strict=True)) if pairs else (np.empty(0, int), np.empty(0, int))
    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(len(bits), len(bits)))
    return connected_components(graph, directed=False)[1][place]


def pool_prior(pool: pd.DataFrame) -> float | None:
    """Expected share of tumor in the pool, the mean of the calibrated probs; None for an empty pool."""
    # An exact sum: the mean must not depend on the order of the rows.
    return fsum(pool.prob) / len(pool) if len(pool) else None


def balance(pool: pd.DataFrame, stays: np.ndarray, prior: float) -> np.ndarray:
    """Keeps only the most confident of the over-represented class, so that the tumor share is nearest to `prior`.

    Where one class has no candidate, no ratio can be kept and nothing stays, unless `prior` asks for none of that class either.
    """
    reasons = no_reasons(len(pool))
    tumor = int((stays & (pool.called == 1).to_numpy()).sum())
    normal = int(stays.sum()) - tumor
    if not tumor and not normal:
        return reasons
    if not tumor or not normal:
        if not _filling(tumor + normal, 1 - prior if tumor else prior):
            return reasons
        absent = CLASSES[0 if tumor else 1]
        reasons[stays] = f"no {absent} patch is left to keep a tumor share of {prior:.4g} (pseudo.balance)"
        return reasons
    words = f"{{}} surer {{}} patches fill the tumor share of {prior:.4g} (pseudo.balance)"
    if tumor > prior * (tumor + normal):
        kept = min(tumor, _filling(normal, prior))
        return keep_most_confident(pool, stays, 1, kept, words.format(kept, "tumor"))
    kept = min(normal, _filling(tumor, 1 - prior))
    return keep_most_confident(pool, stays, 0, kept, words.format(kept, "normal"))


def _filling(others: int, share: float) -> int:
    """The number of patches that, added to `others`, is nearest to `share` of all; `share` is below 1."""
    least = int(others * share / (1 - share))
    return min((least + 1, least), key=lambda n: abs(n / (n + others) - share))


@dataclass(frozen=True)
class SelectionContext:
    """What the selectors of one fold get besides the pool; it holds no labels of the pool."""

    options: Pseudo
    thresholds: dict[int, Threshold] | None
    """By class; None where pseudo.precision is null."""
    prior: float | None
    """Expected share of tumor in the pool, None for an empty pool."""
    number: int = 1
    """The round."""


@dataclass(frozen=True)
class Selector:
    """A selector that a key under `pseudo:` switches on, by any value but null, false and none."""

    leave_out: Callable[[pd.DataFrame, np.ndarray, Any, SelectionContext], np.ndarray]
    """(pool, candidates, value of the key, context) -> reasons, object [N]."""
    rule: Callable[[Any, int, SelectionContext], str] | None = None
    """Says for a class when a patch counts as confident. None: the selector only leaves out candidates of other selectors."""
    applies: Callable[[SelectionContext], bool] = lambda context: True
    key: tuple[Any, Any] | None = None
    """For a selector of another package: the type and the pydantic field of its key."""


def _precision_rule(target: float, label: int, context: SelectionContext) -> str:
    threshold = context.thresholds[label].prob
    return "" if threshold is None else f"beyond prob {threshold:.4g}, from where a precision of {target:g} is proven"


def _by_value(selector: Callable[[pd.DataFrame, np.ndarray, Any], np.ndarray]):
    return lambda pool, stays, value, context: selector(pool, stays, value)


SELECTORS: dict[str, Selector] = {
    "precision": Selector(lambda pool, stays, target, context: precision(pool, stays, context.thresholds, target), _precision_rule),
    "confidence": Selector(_by_value(confidence), lambda tau, label, context: f"beyond prob {tau if label else 1 - tau:.4g}"),
    "view_std": Selector(_by_value(view_std)),
    "agreement": Selector(lambda pool, stays, value, context: agreement(pool, stays)),
    "k_best": Selector(_by_value(k_best), lambda k, label, context: f"among the {k} surest of its class"),
    "top_share": Selector(_by_value(top_share), lambda share, label, context: f"among the surest {share:g} of the pool"),
    "class_share": Selector(
        lambda pool, stays, share, context: class_share(pool, stays, share, context.number),
        lambda share, label, context: f"among the surest {min(1.0, context.number * share):.3g} of its class",
    ),
    "duplicate_cap": Selector(_by_value(duplicate_cap)),
    "slide_cap": Selector(_by_value(slide_cap)),
    "balance": Selector(
        lambda pool, stays, value, context: balance(pool, stays, context.prior), applies=lambda context: context.prior is not None
    ),
    "round_cap": Selector(_by_value(round_cap)),
}
"""By key of `pseudo:`, in the order in which they apply; selectors of other packages come last."""


def selectors_in_use(options: Pseudo) -> dict[str, Selector]:
    """The selectors that a recipe switches on, by key, in the order in which they apply."""
    others = [key for key in type(options).model_fields if key not in Pseudo.model_fields]
    table = SELECTORS | {key: load_extension(GROUP, key) for key in others}
    return {key: selector for key, selector in table.items() if getattr(options, key) not in (None, False, "none")}
