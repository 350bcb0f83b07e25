"""A unit of work from nothing to its Predictions: fit on training slides, calibrate on inner slides, score its own slides and the test split."""

import time
from contextlib import nullcontext

import pandas as pd

from pcam_ssl.engine.checkpoint import remove_checkpoints
from pcam_ssl.files import write_json
from pcam_ssl.models.artefact import load_weights, save_facts
from pcam_ssl.models.network import Network
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import progress
from pcam_ssl.workflows.calibration import calibrate, calibrator_of
from pcam_ssl.workflows.fitting import fit_unit
from pcam_ssl.workflows.knn_fold import save_retrieval, score_neighbours
from pcam_ssl.workflows.setting import Setting, Unit

PLAIN_TABLE = "oof-plain"
"""What the fold would say from one plain view, calibrated on its own: it shows what the other views are worth."""


def train_unit(setting: Setting, unit: Unit) -> None:
    """Train and score a unit; its folder is complete once `fold.json` is there. Resumes where it was stopped."""
    folder = unit.folder(setting.run)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.time()
    training = fit_unit(setting, unit)
    network = training.method.network
    load_weights(folder, network)
    inner, inner_plain = predict_views(setting, network, setting.rows[unit.inner], unit, "inner")
    calibrator = calibrate(setting, inner)
    if setting.world.leads:
        save_facts(
            folder,
            network,
            fold=unit.number,
            calibration=calibrator.to_dict(),
            precision=setting.precision.to_dict(),
            recipe=setting.recipe.dump(),
            dataset_digest=setting.dataset.digest,
        )
    scored = {name: predict_views(setting, network, rows, unit, name) for name, rows in scored_rows(setting, unit).items()}
    tables = {"inner": inner, **{name: table for name, (table, _) in scored.items()}}
    tables, more = {name: table.assign(prob=calibrator.prob(table.logit)) for name, table in tables.items()}, {}
    if setting.recipe.neighbours.use:
        neighbours = score_neighbours(setting, unit, network, tables)
        tables, more = {**tables, **neighbours["tables"]}, {"neighbours": neighbours["facts"]}
        save_retrieval(setting, unit, neighbours["retrieval"])
    if setting.test_views.count > 1 and "oof" in scored:
        plain = scored["oof"][1]
        tables[PLAIN_TABLE] = plain.assign(prob=calibrator_of(setting, inner_plain).prob(plain.logit))
    for name, table in tables.items():
        save_predictions(setting, unit, name, table)
    if setting.world.leads:
        facts = {"fold": unit.number, "epoch": training.best["epoch"], "seconds": round(time.time() - begun, 1)}
        counts = {name: int(getattr(unit, name).sum()) for name in ("train", "inner", "score")}
        machine = {"processes": setting.world.size, "precision": setting.precision.to_dict()}
        write_json(folder / "fold.json", {**facts, **counts, **machine, "calibration": calibrator.to_dict(), **more})
        remove_checkpoints(folder)


def scored_rows(setting: Setting, unit: Unit) -> dict[str, pd.DataFrame]:
    """What a unit predicts, by the name of the table: its own slides, and the test split; nothing where there is none."""
    patches = setting.dataset.patches
    parts = {"oof": setting.rows[unit.score], "test": patches[(patches.split == "test") & unit.test]}
    return {name: rows for name, rows in parts.items() if len(rows)}


def predict_rows(setting: Setting, network: Network, rows: pd.DataFrame, unit: Unit, name: str) -> pd.DataFrame:
    """Uncalibrated Predictions of `rows` under the recipe's test-time views."""
    return predict_views(setting, network, rows, unit, name)[0]


def predict_views(
    setting: Setting, network: Network, rows: pd.DataFrame, unit: Unit, name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same, and beside it the Predictions of the plain view alone."""
    bar = progress(f"{unit.name} {name}", len(rows)) if setting.world.leads else nullcontext(lambda *_: None)
    with bar as advance:
        score = setting.scorer(setting.test_views)
        logits, view_std, plain = score(network, rows=rows.row.to_numpy(), ids=rows.id, advance=advance)
    known = (rows.id, rows.label, rows.wsi, unit.number)
    return predictions(*known, logits, view_std), predictions(*known, plain)


def save_predictions(setting: Setting, unit: Unit, name: str, table: pd.DataFrame) -> None:
    """Write one of the unit's tables, with the run's digests in its metadata."""
    if setting.world.leads:
        notes = setting.run.table_notes(setting.run.info(), round=setting.round, views=setting.test_views.count)
        write_table(unit.folder(setting.run) / f"{name}.parquet", table, notes)
