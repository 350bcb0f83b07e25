"""Decide which patches of a fold's pool get a pseudo-label, with a reason for each patch; the weight of a pseudo-label in the loss."""

from math import fsum

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.metrics import predicted_class
from pcam_ssl.evaluation.prior_shift import LEAST_TOLD, em_prior, log_odds, shifted, told
from pcam_ssl.pseudo_labels.selectors import SelectionContext, no_reasons, pool_prior, ranked_pool, selectors_in_use
from pcam_ssl.pseudo_labels.thresholds import Threshold, precision_thresholds
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.tables import CLASSES, DECISION_COLUMNS, conform


def decide(
    pool: pd.DataFrame,
    inner: pd.DataFrame,
    options: Pseudo,
    previous: pd.DataFrame | None,
    network_digest: str,
    cluster: str = "slide",
    number: int = 1,
    labelled_share: float | None = None,
) -> tuple[pd.DataFrame, dict]:
    """The decisions of one fold in round `number` (`DECISION_COLUMNS`, rows as in `pool`), and its facts as JSON values.

    `pool` has `POOL_COLUMNS`; `inner` are the Predictions of the fold's inner slides, and `cluster` names what its `wsi` holds.
    `labelled_share`, needed for `pseudo.prior: em`, is the share of tumor among the labels that the teacher was trained on. Each
    round decides anew: `previous`, the fold's decisions of the round before, only fills the column `change`. The order of the pool's
    rows does not matter.
    Facts: pool (patches), prior, thresholds by class (None where pseudo.precision is null), added by class, left_out by selector,
    change by kind, tumor_share of the added (None where nothing is added), nothing (a sentence where nothing is added, else None), not_em (a sentence
    where the prior is not EM's although the recipe asks for it, else None).
    Raises UserError where a selector needs a kNN prob and the pool has none.
    """
    pool, prior, not_em = _with_prior(conform(pool, POOL_COLUMNS), inner, options, labelled_share)
    pool = ranked_pool(pool)
    thresholds = None
    if options.precision is not None:
        thresholds = precision_thresholds(inner, options.precision, options.precision_level, cluster)
    context = SelectionContext(options, thresholds, prior, number)
    stays, reasons, left_out = np.ones(len(pool), dtype=bool), no_reasons(len(pool)), {}
    for key, selector in selectors_in_use(options).items():
        if not selector.applies(context):
            continue
        reasons_of_selector = selector.leave_out(pool, stays, getattr(options, key), context)
        out = reasons_of_selector != ""
        reasons[out] = reasons_of_selector[out]
        stays &= ~out
        left_out[key] = int(out.sum())
    for label in (0, 1):
        reasons[stays & (pool.called == label).to_numpy()] = f"called {CLASSES[label]}: {_rule(context, label)}"
    decisions = _decisions(pool, stays, reasons, options).assign(network_digest=network_digest)
    decisions["change"] = _change(decisions, previous)
    return conform(decisions, DECISION_COLUMNS), {**_facts(decisions, prior, thresholds, left_out), "not_em": not_em}


def _with_prior(
    pool: pd.DataFrame, inner: pd.DataFrame, options: Pseudo, labelled_share: float | None
) -> tuple[pd.DataFrame, float | None, str | None]:
    """The pool, its probs shifted where the recipe says so, its expected share of tumor (None for an empty pool), and why that is not EM's where it should be."""
    if options.prior == "mean" or not len(pool):
        return pool, pool_prior(pool), None
    if (explained := told(inner.label, inner.prob)) < LEAST_TOLD:
        why = (
            f"pseudo.prior=em is not used: on inner slides the probs explain {max(explained, 0):.1%} of the variance of labels, less than"
            f" {LEAST_TOLD:.0%}, too little to tell the pool's tumor share; it is the mean of the probs"
        )
        return pool, pool_prior(pool), why
    share = em_prior(pool.prob, labelled_share)
    move = log_odds(share) - log_odds(labelled_share)
    return pool.assign(prob=shifted(pool.prob, labelled_share, share), logit=pool.logit + move), share, None


def _rule(context: SelectionContext, label: int) -> str:
    chosen = selectors_in_use(context.options).items()
    rules = [selector.rule(getattr(context.options, key), label, context) for key, selector in chosen if selector.rule]
    return "; ".join(filter(None, rules)) or "nothing in the recipe leaves it out"


def _decisions(pool: pd.DataFrame, stays: np.ndarray, reasons: np.ndarray, options: Pseudo) -> pd.DataFrame:
    labels = pool.prob if options.label == "soft" else pool.called
    return pool.assign(
        decision=np.where(stays, "added", "left out"),
        reason=reasons,
        label=np.where(stays, labels, np.nan),
        weight=np.where(stays, options.weight_scale * WEIGHTS[options.weight](pool), 0.0),
    )


def _change(decisions: pd.DataFrame, previous: pd.DataFrame | None) -> np.ndarray:
    """One of `CHANGES`, or '' where the patch is left out in both rounds; str [N]."""
    before = np.full(len(decisions), np.nan)
    if previous is not None and len(previous):
        place = pd.Index(previous.id).get_indexer(decisions.id)
        before = np.where(place >= 0, previous.label.to_numpy()[place], np.nan)
    now, was = decisions.label.notna().to_numpy(), ~np.isnan(before)
    same = predicted_class(decisions.label) == predicted_class(before)
    return np.select([now & ~was, now & was & same, now & was, was], CHANGES, default="")


def _facts(decisions: pd.DataFrame, prior: float | None, thresholds: dict[int, Threshold] | None, left_out: dict[str, int]) -> dict:
    added = decisions.label.notna()
    by_class = {name: int((added & (decisions.called == label)).sum()) for label, name in enumerate(CLASSES)}
    n = sum(by_class.values())
    return {
        "pool": len(decisions),
        "prior": prior,
        "thresholds": thresholds and {CLASSES[label]: thresholds[label].facts() for label in (0, 1)},
        "added": by_class,
        "left_out": left_out,
        "change": {kind: int((decisions.change == kind).sum()) for kind in CHANGES},
        "tumor_share": by_class["tumor"] / n if n else None,
        "nothing": None if n else _nothing(len(decisions), thresholds, left_out),
    }


def _nothing(n: int, thresholds: dict[int, Threshold] | None, left_out: dict[str, int]) -> str:
    if not n:
        return "nothing is added: the pool holds no patch"
    counts = ", ".join(f"{count} by pseudo.{name}" for name, count in left_out.items() if count)
    unproven = [threshold.reason for threshold in (thresholds or {}).values() if threshold.prob is None]
    return "; ".join([f"nothing is added: of {n} patches, {counts} left out", *unproven])


POOL_COLUMNS = {
    "id": "str",
    "wsi": "str",
    "fold": "Int8",
    "logit": "float64",
    "prob": "float64",
    "view_std": "float64",
    "knn_prob": "float64",
    "disagreement": "float64",
    "view_hash": "str",
}
"""One row per pool patch of one fold. `prob` is calibrated, `knn_prob` NaN without kNN, `disagreement` 0 with one opinion. No labels."""
CHANGES = ("new", "kept", "flipped", "taken back")


def confidence_weights(probs: np.ndarray) -> np.ndarray:
    """2 |prob - 0.5|: 0 for prob 0.5, 1 for prob 0 or 1; [N]."""
    return 2 * np.abs(probs - 0.5)


def softmatch_weights(probs: np.ndarray) -> np.ndarray:
    """SoftMatch (Chen et al. 2023, arXiv:2301.10921): a Gaussian of the confidence max(prob, 1 - prob), cut off at its mean; [N].

    1 from the mean upward, exp(-(confidence - mean)^2 / (2 variance)) below. Deviation from the paper: mean and variance are those of
    the whole pool, where the paper takes moving averages over batches; as there, both classes share them.
    """
    confidence = np.maximum(probs, 1 - probs)
    if not len(confidence) or confidence.min() == confidence.max():
        return np.ones_like(confidence)
    # Exact sums: the weights must not depend on the order of the rows.
    mean = fsum(confidence) / len(confidence)
    variance = fsum((confidence - mean) ** 2) / len(confidence)
    return np.exp(-(np.minimum(confidence - mean, 0) ** 2) / (2 * variance))


WEIGHTS = {
    "constant": lambda pool: np.ones(len(pool)),
    "confidence": lambda pool: confidence_weights(pool.prob.to_numpy()),
    "softmatch": lambda pool: softmatch_weights(pool.prob.to_numpy()),
    "agreement": lambda pool: 1 - pool.disagreement.to_numpy(),
}
"""By value of `pseudo.weight`: the weight [N] in the loss of each patch of a pool (`POOL_COLUMNS`) if it were added. A true label has weight 1."""
