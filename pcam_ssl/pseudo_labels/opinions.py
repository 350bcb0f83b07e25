"""One prob from several opinions on a patch: classifier (`head`), kNN (`knn`) and label propagation (`graph`) of the same network.

The opinions' calibrated logits are averaged, with weights that inner patches choose. Every inner patch is mixed with weights that were
chosen without its slide, so that thresholds and calibration rest on mixes that have not seen its label.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.blending.ensemble import fit_blend, parts_of
from pcam_ssl.blending.ensemble import pool as mixed
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import fit_calibrator
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.tables import calibrated_logits

COLUMNS = {"head": "prob", "knn": "knn_prob", "graph": "graph_prob"}
"""The column of each opinion in the tables of `teacher`. Where kNN scores the run, `prob` is that of kNN."""


def opinions_of(name: str) -> list[str]:
    """The opinions in a value of `pseudo.opinions`: 'head+knn' is ['head', 'knn']."""
    return name.split("+")


def check_opinions(recipe: Recipe, where: str, is_blend: bool) -> None:
    """Raises UserError where a round of this recipe lacks one of its opinions, or where one opinion cannot disagree with itself."""
    names, weight = opinions_of(recipe.pseudo.opinions), recipe.pseudo.weight
    if weight == "agreement" and len(names) < 2:
        raise UserError(
            "pseudo.weight=agreement compares opinions, and pseudo.opinions names one; set for example pseudo.opinions=head+knn"
        )
    if names == ["head"]:
        return
    chosen = f"pseudo.opinions={recipe.pseudo.opinions}"
    if is_blend:
        raise UserError(
            f"{chosen}: {where} is a blend, whose members are its opinions; blend its runs with RUN:knn, and leave the key out"
        )
    if "head" in names and recipe.scored_by == "knn":
        raise UserError(f"{chosen}: {where} has no classifier (method.classify=false); name knn and graph only")
    if "knn" in names and not recipe.uses_knn:
        raise UserError(f"{chosen}: {where} has no kNN; train a run with neighbours.use=true, or with `pcam-ssl metric-train`")
    if "graph" in names and not recipe.graph.use:
        raise UserError(f"{chosen}: {where} has no label propagation; train a run with graph.use=true")


@dataclass(frozen=True)
class Mix:
    """Pool and inner tables with the mixed prob, and how it was mixed."""

    pool: pd.DataFrame
    """As before, `prob` and `logit` mixed, with `disagreement` `[N]`: the highest prob of an opinion minus the lowest."""
    inner: pd.DataFrame
    """`prob` mixed with weights that were chosen without the patch's slide."""
    facts: dict[str, Any] | None
    """JSON values: `weights` by opinion, `temperature`, `n` inner patches, `reason` where the weights are equal. None for one opinion."""


def mix_opinions(pool: pd.DataFrame, inner: pd.DataFrame, names: list[str]) -> Mix:
    """The calibrated mean of the opinions `names` on pool and inner patches; tables as of `teacher`.

    `inner` has `wsi`, the clusters of slides. With one class or one slide among the inner patches no weights can be chosen, and they are
    equal. Raises UserError where an opinion is absent.
    """
    if len(names) == 1:
        return Mix(*(_alone(table, names[0]).assign(disagreement=0.0) for table in (pool, inner)), None)
    columns = [[_probs(table, name) for name in names] for table in (pool, inner)]
    of_pool, of_inner = (calibrated_logits(np.stack(each, axis=1)) for each in columns)
    labels = inner.label.to_numpy(np.int64)
    slides = None if inner.wsi.isna().any() else inner.wsi
    parts, unit = parts_of(np.zeros(len(inner), np.int64), np.arange(len(inner)) if slides is None else slides)
    reason = _no_choice(labels, parts)
    weights = np.full(len(names), 1 / len(names))
    held_out = mixed("logit", of_inner, weights)
    if reason is None:
        blend = fit_blend("weights", of_inner, labels, parts, np.ones(len(inner), bool), unit)
        weights, held_out = blend.weights, blend.out_of_fold(of_inner, [])
    calibrator = fit_calibrator(held_out, labels, slides)
    logits = mixed("logit", of_pool, weights)
    facts = {
        "weights": dict(zip(names, weights.tolist(), strict=True)),
        "temperature": calibrator.temperature,
        "n": len(labels),
        "reason": reason,
    }
    return Mix(
        pool.assign(logit=logits, prob=calibrator.prob(logits), disagreement=np.ptp(columns[0], axis=0)),
        inner.assign(prob=calibrator.prob(held_out)),
        facts,
    )


def _no_choice(labels: np.ndarray, parts: np.ndarray) -> str | None:
    """Why no weights can be chosen; None where they can."""
    if len(labels) == 0 or len(np.unique(labels)) < 2:
        return "the inner patches hold fewer than two classes"
    if len(np.unique(parts)) < 2:
        return "the inner patches are of one slide"
    if any(len(np.unique(labels[parts != part])) < 2 for part in np.unique(parts)):
        return "one class is on too few inner slides"
    return None


def _alone(table: pd.DataFrame, name: str) -> pd.DataFrame:
    if name == "head":
        return table
    probs = _probs(table, name)
    return table.assign(prob=probs, logit=calibrated_logits(probs))


def _probs(table: pd.DataFrame, name: str) -> np.ndarray:
    probs = table[COLUMNS[name]]
    if name == "knn" and probs.isna().all():
        # A run without a classifier: kNN is its prob.
        probs = table.prob
    if probs.isna().any():
        raise UserError(f"pseudo.opinions: {probs.isna().sum()} patches have no {COLUMNS[name]}; leave {name} out of it")
    return probs.to_numpy(np.float64)
