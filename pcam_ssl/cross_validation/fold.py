"""Train one fold and write its Predictions: fit on training slides, calibrate on inner slides, score its own slides and the test split."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.context import Fitted, RunContext, calibrate, calibrator_of
from pcam_ssl.cross_validation.fitting import fit_unit
from pcam_ssl.cross_validation.graph_scores import graph_tables
from pcam_ssl.cross_validation.linear_heads import fit_linear_heads
from pcam_ssl.cross_validation.neighbor_votes import knn_tables, save_retrieval, score_neighbours
from pcam_ssl.cross_validation.spatial_scores import spatial_tables
from pcam_ssl.cross_validation.training_data import passes_per_step
from pcam_ssl.data.folds import Unit
from pcam_ssl.files import write_json
from pcam_ssl.models.artefact import add_backbone, load_weights, save_facts
from pcam_ssl.models.network import Network
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress
from pcam_ssl.training.checkpoint import remove_checkpoints
from pcam_ssl.training.loop import Training

PLAIN_TABLE = "oof-plain"
"""Table of the fold's Predictions from one plain view, with their own calibration; it shows what the other views gain."""


def train_unit(context: RunContext, unit: Unit) -> None:
    """Train and score a unit, or continue an interrupted one. `fold.json` is written last: it marks the unit as finished."""
    folder = context.run.unit(unit.name)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    fitted = (fit_linear_heads if context.recipe.optim.name == "lbfgs" else fit_by_gradient)(context, unit)
    result = (_by_neighbours if context.recipe.scored_by == "knn" else _by_head)(context, unit, fitted)
    further = {"neighbours": {"tables": {}, "facts": result.neighbours}}
    if context.recipe.graph.use:
        further["graph"] = graph_tables(context, unit, fitted, result.own)
    if context.recipe.spatial.use:
        further["spatial"] = spatial_tables(context, unit, result.own)
    if context.world.is_main:
        facts = {
            "fold": unit.number,
            "scored_by": context.recipe.scored_by,
            "calibration": result.calibration,
            "precision": context.precision.to_dict(),
            "recipe": context.recipe.dump(),
            "dataset_digest": context.dataset.digest,
        }
        for part, network in [(unit, fitted.network), *fitted.inner]:
            save_facts(context.run.unit(part.name), network, **facts)
        if context.frozen is not None:
            add_backbone(folder, context.frozen.network.backbone)
    save_retrieval(context, unit, result.retrieval)
    for tables in (result.tables, *(found["tables"] for found in further.values())):
        for name, table in tables.items():
            save_predictions(context, unit, name, table)
    if context.world.is_main:
        facts = {"fold": unit.number, **fitted.facts, "seconds": round(time.time() - begun, 1)}
        counts = {name: int(getattr(unit, name).sum()) for name in ("train", "inner", "score")}
        machine = {"processes": context.world.size, "precision": context.precision.to_dict()}
        more = {name: found["facts"] for name, found in further.items() if found["facts"]}
        for part in (*unit.parts, unit):  # the unit last: its file says that all is there
            write_json(
                context.run.unit(part.name) / "fold.json", {**facts, **counts, **machine, "calibration": result.calibration, **more}
            )
        for part in (*unit.parts, unit):
            remove_checkpoints(context.run.unit(part.name))


def fit_by_gradient(context: RunContext, unit: Unit) -> Fitted:
    """Train the unit's inner networks, where it cross-fits, and its own network, each by the training loop."""
    inner = [(part, *_trained(context, part)) for part in unit.parts]
    network, training = _trained(context, unit)
    facts = {"epoch": training.best["epoch"], "steps": training.step}
    if not context.trains_on_cached:
        steps = training.step + sum(each.step for _, _, each in inner)
        facts["patch_passes"] = steps * passes_per_step(context.recipe)
    return Fitted(network, [(part, each) for part, each, _ in inner] or [(unit, network)], facts)


def _trained(context: RunContext, unit: Unit) -> tuple[Network, Training]:
    folder = context.run.unit(unit.name)
    folder.mkdir(parents=True, exist_ok=True)
    training = fit_unit(context, unit)
    network = training.method.network
    load_weights(folder, network, heads_only=context.frozen is not None)
    return network, training


@dataclass(frozen=True)
class UnitPredictions:
    """Predictions of a unit by table name, the calibration of its `oof` and `test`, and the facts and retrieval measures of `knn_tables`."""

    tables: dict[str, pd.DataFrame]
    calibration: dict[str, Any]
    neighbours: dict[str, Any] | None = None
    retrieval: pd.DataFrame | None = None

    @property
    def own(self) -> dict[str, pd.DataFrame]:
        """The unit's own Predictions: `inner`, and `oof` and `test` where they exist."""
        return {name: self.tables[name] for name in ("inner", "oof", "test") if name in self.tables}


def _by_head(context: RunContext, unit: Unit, fitted: Fitted) -> UnitPredictions:
    """Predictions of the classifier, and of kNN where the recipe uses it."""
    network = fitted.network
    inner, inner_plain = inner_predictions(context, unit, fitted)
    calibrator = calibrate(context, inner)
    scored = {name: predict_views(context, network, rows, unit, name) for name, rows in scored_rows(context, unit).items()}
    tables = {"inner": inner, **{name: table for name, (table, _) in scored.items()}}
    tables = {name: table.assign(prob=calibrator.prob(table.logit)) for name, table in tables.items()}
    found = score_neighbours(context, unit, fitted, tables) if context.recipe.neighbours.use else {"tables": {}}
    if context.test_views.count > 1 and "oof" in scored:
        plain = scored["oof"][1]
        tables[PLAIN_TABLE] = plain.assign(prob=calibrator_of(context, inner_plain).prob(plain.logit))
    return UnitPredictions({**tables, **found["tables"]}, calibrator.to_dict(), found.get("facts"), found.get("retrieval"))


def inner_predictions(context: RunContext, unit: Unit, fitted: Fitted) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Uncalibrated Predictions of the unit's inner patches, each by a network that did not learn from it: under all test-time views, and the plain one."""
    if len(fitted.inner) == 1:
        return predict_views(context, fitted.network, context.rows[unit.inner], unit, "inner")
    scored = [predict_views(context, network, context.rows[part.inner], part, "inner") for part, network in fitted.inner]
    order = np.argsort(np.concatenate([np.flatnonzero(part.inner) for part, _ in fitted.inner]))
    return tuple(pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True) for tables in zip(*scored, strict=True))


def _by_neighbours(context: RunContext, unit: Unit, fitted: Fitted) -> UnitPredictions:
    """Predictions of kNN alone: without a classification loss the head is untrained."""
    patches = {"inner": context.rows[unit.inner], **scored_rows(context, unit)}
    found = knn_tables(context, unit, fitted, patches)
    return UnitPredictions(found["tables"], found["facts"]["calibration"], found["facts"], found["retrieval"])


def scored_rows(context: RunContext, unit: Unit) -> dict[str, pd.DataFrame]:
    """The patches that a unit predicts, by table name: `oof` (its own slides) and `test` (the test split); tables without rows are left out."""
    patches = context.dataset.patches
    parts = {"oof": context.rows[unit.score], "test": patches[(patches.split == "test") & unit.test]}
    return {name: rows for name, rows in parts.items() if len(rows)}


def predict_views(
    context: RunContext, network: Network, rows: pd.DataFrame, unit: Unit, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Uncalibrated Predictions under the recipe's test-time views, and those of the plain view alone."""
    logits, view_std, plain = score_views(context, network, rows, unit, name)
    columns = (rows.id, rows.label, rows.wsi, unit.number)
    return predictions(*columns, logits, view_std), predictions(*columns, plain)


def score_views(
    context: RunContext, network: Network, rows: pd.DataFrame, unit: Unit, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`predict_logits` of `rows` under the recipe's test-time views, with a progress bar."""
    bar = progress(f"{unit.name} {name}", len(rows)) if context.world.is_main else nullcontext(lambda *_: None)
    with bar as advance:
        return context.scorer(context.test_views)(network, rows=rows.row.to_numpy(), ids=rows.id, advance=advance)


def save_predictions(context: RunContext, unit: Unit, name: str, table: pd.DataFrame) -> None:
    """Write one of the unit's tables, with the run's digests in its metadata."""
    if context.world.is_main:
        notes = context.run.table_notes(context.run.info(), round=context.round, views=context.test_views.count)
        write_table(context.run.unit(unit.name) / f"{name}.parquet", table, notes)
