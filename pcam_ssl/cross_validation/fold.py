"""A unit of work from nothing to its Predictions: fit on training slides, calibrate on inner slides, score its own slides and the test split."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pcam_ssl.cross_validation.context import RunContext, calibrate, calibrator_of
from pcam_ssl.cross_validation.fitting import fit_unit
from pcam_ssl.cross_validation.neighbor_votes import knn_tables, save_retrieval, score_neighbours
from pcam_ssl.data.folds import Unit
from pcam_ssl.files import write_json
from pcam_ssl.models.artefact import load_weights, save_facts
from pcam_ssl.models.network import Network
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress
from pcam_ssl.training.checkpoint import remove_checkpoints

PLAIN_TABLE = "oof-plain"
"""What the fold would say from one plain view, calibrated on its own: it shows what the other views are worth."""


def train_unit(context: RunContext, unit: Unit) -> None:
    """Train and score a unit; its folder is complete once `fold.json` is there. Resumes where it was stopped."""
    folder = context.run.unit(unit.name)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    training = fit_unit(context, unit)
    network = training.method.network
    load_weights(folder, network)
    scored = (_by_neighbours if context.recipe.scored_by == "knn" else _by_head)(context, unit, network)
    if context.world.is_main:
        save_facts(
            folder,
            network,
            fold=unit.number,
            scored_by=context.recipe.scored_by,
            calibration=scored.calibration,
            precision=context.precision.to_dict(),
            recipe=context.recipe.dump(),
            dataset_digest=context.dataset.digest,
        )
    save_retrieval(context, unit, scored.retrieval)
    for name, table in scored.tables.items():
        save_predictions(context, unit, name, table)
    if context.world.is_main:
        facts = {"fold": unit.number, "epoch": training.best["epoch"], "seconds": round(time.time() - begun, 1)}
        counts = {name: int(getattr(unit, name).sum()) for name in ("train", "inner", "score")}
        machine = {"processes": context.world.size, "precision": context.precision.to_dict()}
        more = {"neighbours": scored.neighbours} if scored.neighbours else {}
        write_json(folder / "fold.json", {**facts, **counts, **machine, "calibration": scored.calibration, **more})
        remove_checkpoints(folder)


@dataclass(frozen=True)
class Scored:
    """What a unit says: Predictions by name of table, the calibration of those that are the run's own, and what `knn_tables` tells."""

    tables: dict[str, pd.DataFrame]
    calibration: dict[str, Any]
    neighbours: dict[str, Any] | None = None
    retrieval: pd.DataFrame | None = None


def _by_head(context: RunContext, unit: Unit, network: Network) -> Scored:
    """Predictions of the classifier, and of kNN beside it where the recipe asks for them."""
    inner, inner_plain = predict_views(context, network, context.rows[unit.inner], unit, "inner")
    calibrator = calibrate(context, inner)
    scored = {name: predict_views(context, network, rows, unit, name) for name, rows in scored_rows(context, unit).items()}
    tables = {"inner": inner, **{name: table for name, (table, _) in scored.items()}}
    tables = {name: table.assign(prob=calibrator.prob(table.logit)) for name, table in tables.items()}
    found = score_neighbours(context, unit, network, tables) if context.recipe.neighbours.use else {"tables": {}}
    if context.test_views.count > 1 and "oof" in scored:
        plain = scored["oof"][1]
        tables[PLAIN_TABLE] = plain.assign(prob=calibrator_of(context, inner_plain).prob(plain.logit))
    return Scored({**tables, **found["tables"]}, calibrator.to_dict(), found.get("facts"), found.get("retrieval"))


def _by_neighbours(context: RunContext, unit: Unit, network: Network) -> Scored:
    """Predictions of kNN alone: without a classification loss the head is as it was made."""
    asked = {"inner": context.rows[unit.inner], **scored_rows(context, unit)}
    found = knn_tables(context, unit, network, asked)
    return Scored(found["tables"], found["facts"]["calibration"], found["facts"], found["retrieval"])


def scored_rows(context: RunContext, unit: Unit) -> dict[str, pd.DataFrame]:
    """What a unit predicts, by the name of the table: its own slides, and the test split; nothing where there is none."""
    patches = context.dataset.patches
    parts = {"oof": context.rows[unit.score], "test": patches[(patches.split == "test") & unit.test]}
    return {name: rows for name, rows in parts.items() if len(rows)}


def predict_rows(context: RunContext, network: Network, rows: pd.DataFrame, unit: Unit, name: str) -> pd.DataFrame:
    """Uncalibrated Predictions of `rows` under the recipe's test-time views."""
    return predict_views(context, network, rows, unit, name)[0]


def predict_views(
    context: RunContext, network: Network, rows: pd.DataFrame, unit: Unit, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same, and beside it the Predictions of the plain view alone."""
    bar = progress(f"{unit.name} {name}", len(rows)) if context.world.is_main else nullcontext(lambda *_: None)
    with bar as advance:
        score = context.scorer(context.test_views)
        logits, view_std, plain = score(network, rows=rows.row.to_numpy(), ids=rows.id, advance=advance)
    known = (rows.id, rows.label, rows.wsi, unit.number)
    return predictions(*known, logits, view_std), predictions(*known, plain)


def save_predictions(context: RunContext, unit: Unit, name: str, table: pd.DataFrame) -> None:
    """Write one of the unit's tables, with the run's digests in its metadata."""
    if context.world.is_main:
        notes = context.run.table_notes(context.run.info(), round=context.round, views=context.test_views.count)
        write_table(context.run.unit(unit.name) / f"{name}.parquet", table, notes)
