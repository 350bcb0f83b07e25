"""Teacher predictions of a unit's pool: calibrated, with the spread over views, and the probs of kNN and of label propagation; by one network, or by the members of a blend."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.blending.members import INNER, Member
from pcam_ssl.blending.tables import as_member, blended_table
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.fold import score_views
from pcam_ssl.cross_validation.frozen import open_frozen
from pcam_ssl.cross_validation.graph_scores import propagated_logits
from pcam_ssl.cross_validation.neighbor_votes import embed_patches, vote_logits, vote_probs
from pcam_ssl.data.folds import Folds, Unit, score_groups, whole_unit
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.device import choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.files import digest_file, digest_text
from pcam_ssl.models.artefact import FACTS, WEIGHTS, load_network
from pcam_ssl.models.network import Network, side_by_side
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.opinions import check_opinions
from pcam_ssl.records import read_fold, read_graph, read_neighbours
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import among, mean_over, predictions, read_predictions, read_probs, read_table, write_table

KEPT = "pool.parquet"
TEACHER_COLUMNS = ["id", "logit", "prob", "view_std", "knn_prob", "graph_prob"]


def teacher_digest(folder: Path) -> str:
    """SHA-256 of a unit's weights. Raises UserError where the file does not exist."""
    try:
        return digest_file(folder / WEIGHTS)
    except FileNotFoundError:
        raise UserError(f"{folder / WEIGHTS}: no such file; pseudo-labels need a finished run, train it to its end") from None


def inner_table(folder: Path) -> pd.DataFrame:
    """Calibrated Predictions of a unit's inner slides, with `knn_prob` and `graph_prob` (NaN where the unit has none of them).

    Raises UserError where the unit has no inner Predictions.
    """
    path = folder / "inner.parquet"
    if not path.exists():
        raise UserError(
            f"{path}: no such file, so no threshold can be chosen; this run was made by an older pcam-ssl: train it again"
        )
    inner = read_predictions(path)
    return inner.assign(**further_opinions(folder, "inner", inner.id))


def inner_evidence(folder: Path, folds: Folds) -> tuple[pd.DataFrame, str]:
    """The inner table with the clusters that intervals resample as `wsi`, and their name: slide, or stain cluster where slides are unknown.

    Patches of unknown slides must not count as independent: they would prove too high a precision.
    """
    inner = inner_table(folder)
    groups, cluster = score_groups(folds, inner)
    return inner if groups is None else inner.assign(wsi=groups.array), cluster


def check_teachers(run: Run, units: list[Unit]) -> None:
    """Raises UserError where a unit of a run lacks what rounds need: weights, calibration, inner Predictions."""
    for unit in units:
        for part in (unit, *unit.parts):
            teacher_digest(run.unit(part.name))
            _check_calibration(run.unit(part.name))
        inner_table(run.unit(unit.name))


def pool_table(context: RunContext, unit: Unit, pool: pd.DataFrame, pooled: bool) -> pd.DataFrame:
    """Predictions of the patches `pool` by the unit's network in the run of `context`; no labels. With `pooled` (`pseudo.pooled`) they may lie in
    the pools of other units.

    Columns: `id`, `wsi`, `fold`, `logit`, `prob`, `view_std`, `knn_prob`, `graph_prob`, `view_hash`. Existing predictions are read, those of the test
    split too; the others are made and kept in `pool.parquet`. Raises UserError where a logit is not finite.
    """
    folder = context.run.unit(unit.name)
    predicted = _predicted(folder)
    missing = pool[~among(pool.id, predicted.id)]
    if len(missing):
        predicted = _join(predicted, _keep_predictions(context, unit, missing, pooled))
    rows = predicted.drop_duplicates("id").set_index("id").loc[pool.id].reset_index()
    table = rows[TEACHER_COLUMNS].assign(wsi=pool.wsi.array, view_hash=pool.view_hash.array, fold=unit.number)
    broken = ~np.isfinite(table.logit)
    if broken.any():
        raise UserError(
            f"{folder}: {broken.sum()} pool scores are not finite, first at id {table.id[broken].iloc[0]}; retrain that fold"
        )
    return table[["id", "wsi", "fold", *TEACHER_COLUMNS[1:], "view_hash"]]


def _keep_predictions(context: RunContext, unit: Unit, missing: pd.DataFrame, pooled: bool) -> pd.DataFrame:
    """Predict the patches `missing`, and write them beside what is kept already; returns what is kept then.

    The linear heads of a fold and of its inner networks read the features of their pools once for all of them. These are always all of
    the heads and all of the pool, so that what a killed command of the same rounds had kept changes not even the last digits.
    """
    whole = whole_unit(context.folds, unit)
    units, on_cached = (whole, *whole.parts), context.frozen is not None and context.frozen.features is not None
    loaded = {each.name: _load(context, each) for each in units} if whole.parts and on_cached and not pooled else {}
    if loaded and all(network.linear and not _by_knn(facts) for network, facts in loaded.values()):
        patches = pool_rows(context.dataset, context.folds, whole)
        network = side_by_side([network for network, _ in loaded.values()])
        logits, view_std = _scored(context, network, patches, whole)
        places, made = pd.Index(patches.row), {}
        for number, each in enumerate(units):
            own = pool_rows(context.dataset, context.folds, each)
            own = own[~among(own.id, _of_test(context.run.unit(each.name)).id)]
            at = places.get_indexer(own.row)
            made[each.name] = _predict(context, each, own, loaded[each.name], (logits[at, number], view_std[at, number]))
    else:
        trained = loaded.get(unit.name) or _load(context, unit)
        scored = None if _by_knn(trained[1]) else _scored(context, trained[0], missing, unit)
        made = {unit.name: _predict(context, unit, missing, trained, scored)}
    kept = {name: _join(_kept(context.run.unit(name)), table).drop_duplicates("id") for name, table in made.items()}

    def write_all() -> None:
        for name, table in kept.items():
            folder = context.run.unit(name)
            write_table(folder / KEPT, table, {"network_digest": teacher_digest(folder)})

    context.world.run_on_main(write_all)
    return kept[unit.name]


def _check_calibration(folder: Path) -> None:
    if not (folder / FACTS).exists():
        raise UserError(f"{folder}: holds no calibration ({FACTS} is absent); train that unit to its end first")


def _predicted(folder: Path) -> pd.DataFrame:
    test = _of_test(folder)
    return _join(test.assign(**further_opinions(folder, "test", test.id))[TEACHER_COLUMNS], _kept(folder)[TEACHER_COLUMNS])


def _of_test(folder: Path) -> pd.DataFrame:
    """The unit's Predictions of the test split; empty where it has none."""
    path = folder / "test.parquet"
    return read_predictions(path) if path.exists() else pd.DataFrame(columns=TEACHER_COLUMNS)


def _kept(folder: Path) -> pd.DataFrame:
    """Pool predictions kept in the folder; those of another network, or of a version that kept fewer columns, are ignored."""
    if not (folder / KEPT).exists():
        return pd.DataFrame(columns=TEACHER_COLUMNS)
    table, notes = read_table(folder / KEPT)
    if not set(TEACHER_COLUMNS) <= set(table) or notes.get("network_digest") != teacher_digest(folder):
        return pd.DataFrame(columns=TEACHER_COLUMNS)
    return table[TEACHER_COLUMNS]


def _join(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The rows of both tables; an empty one has no dtypes and is left out."""
    parts = [part for part in (first, second) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else first


def further_opinions(folder: Path, name: str, ids: pd.Series) -> dict[str, np.ndarray]:
    """Calibrated probs [N] of kNN and of label propagation from the unit's tables `NAME-knn` and `NAME-graph`; NaN where it has none."""
    paths = {f"{each}_prob": folder / f"{name}-{each}.parquet" for each in ("knn", "graph")}
    return {each: read_probs(path, ids) if path.exists() else np.full(len(ids), np.nan) for each, path in paths.items()}


Trained = tuple[Network, dict[str, Any]]
"""A network and its model.json."""


def _load(context: RunContext, unit: Unit) -> Trained:
    folder = context.run.unit(unit.name)
    _check_calibration(folder)
    if context.frozen is None:
        return load_network(folder, context.world.device, context.precision.channels_last)
    return context.frozen.load(folder, context.world.device)


def _by_knn(facts: dict[str, Any]) -> bool:
    return facts.get("scored_by") == "knn"


def _scored(context: RunContext, network: Network, patches: pd.DataFrame, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Logits under the recipe's test-time views and their spread, `[N]` each, or `[N, P]` of networks side by side."""
    return score_views(context, network, patches, unit, "pool")[:2]


def _predict(
    context: RunContext, unit: Unit, patches: pd.DataFrame, trained: Trained, scored: tuple[np.ndarray, np.ndarray] | None
) -> pd.DataFrame:
    """What the network and the unit's further opinions say of `patches`; `scored` are the network's own logits and spread, None where it scores by kNN."""
    (network, facts), folder = trained, context.run.unit(unit.name)
    made = read_fold(folder)
    neighbours = read_neighbours(folder) if made.get("neighbours") else None
    if scored is None:
        scored = vote_logits(context, unit, network, patches, neighbours["vote"]), None
    table = predictions(patches.id, patches.label, patches.wsi, unit.number, *scored)
    table = table.assign(prob=Calibrator.from_dict(facts["calibration"]).prob(table.logit), knn_prob=np.nan, graph_prob=np.nan)
    if neighbours and not _by_knn(facts):
        table["knn_prob"] = vote_probs(context, unit, network, patches, neighbours)
    if made.get("graph"):
        graph = read_graph(folder)
        logits = propagated_logits(context, unit, network, graph["choice"], embed_patches(context, network, patches))
        table["graph_prob"] = Calibrator.from_dict(graph["calibration"]).prob(logits)
    return table[TEACHER_COLUMNS]


def teacher_predictions(rounds: Rounds, number: int, unit: Unit, pool: pd.DataFrame) -> pd.DataFrame:
    """Predictions of the patches `pool` by the networks of a unit of round `number`; columns as of `pool_table`.

    Where round 0 is a blend, they are the blend of its members' networks of that unit, each under its own recipe's test views. None
    of these networks learned a label that the unit scores. `knn_prob` and `graph_prob` are the members' mean, NaN where a member has none.
    """
    pooled = rounds.recipe.pseudo.pooled
    if number or not rounds.members:
        return pool_table(rounds.context(number), unit, pool, pooled)
    heads = {}
    for member in rounds.members:
        if member.run.path not in heads:
            heads[member.run.path] = pool_table(_member_context(rounds, member), unit, pool, pooled)
    tables = [as_member(heads[member.run.path], member.table, member.run.unit(unit.name)) for member in rounds.members]
    weights = np.array([member.weight for member in rounds.members])
    blended = blended_table(tables, rounds.start.info()["blend"]["method"], weights, {})
    return blended.assign(**{name: mean_over([table[name] for table in tables], weights) for name in ("knn_prob", "graph_prob")})


def teacher_predictions_digest(rounds: Rounds, number: int, unit: Unit) -> str:
    """SHA-256 of the teacher weights."""
    if number or not rounds.members:
        return teacher_digest(rounds.run(number).unit(unit.name))
    return digest_text("".join(teacher_digest(member.run.unit(unit.name)) for member in rounds.members))


def check_round_0(rounds: Rounds) -> None:
    """Raises UserError where round 0, or a member of it where it is a blend, lacks what rounds need."""
    check_opinions(rounds.recipe, str(rounds.start.path), bool(rounds.members))
    if not rounds.members:
        check_teachers(rounds.start, rounds.units)
        return
    for member in rounds.members:
        check_teachers(member.run, rounds.units)
        if rounds.recipe.pseudo.agreement and not member.recipe.neighbours.use:
            raise UserError(
                f"pseudo.agreement: {member.run.path}, which {rounds.start.path} blends, has no kNN; blend runs with neighbours.use=true"
            )
    for unit in rounds.units:
        inner = rounds.start.unit(unit.name) / INNER
        if not inner.exists():
            raise UserError(f"{inner}: no such file, so no threshold can be chosen; blend the same runs again into another --out")


def _member_context(rounds: Rounds, member: Member) -> RunContext:
    """The context of a member: its own test views, kNN and number format."""
    recipe = member.recipe
    precision = choose_precision(rounds.world.device, recipe.train.precision, recipe.train.channels_last)
    context = replace(rounds.context_of(member.run), recipe=recipe, precision=precision)
    return replace(context, frozen=open_frozen(recipe, rounds.dataset, rounds.world, precision, rounds.workers))
