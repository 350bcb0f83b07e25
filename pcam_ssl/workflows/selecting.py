"""The pseudo-labels of a round: for each unit what its own network of the round before is sure of, with a trail for every patch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_text, read_json, write_json
from pcam_ssl.selection.decide import decide
from pcam_ssl.tables import read_table, write_table
from pcam_ssl.terminal import say
from pcam_ssl.workflows.pool import pool_rows
from pcam_ssl.workflows.rounds import Rounds
from pcam_ssl.workflows.setting import Unit
from pcam_ssl.workflows.teacher import inner_table, pool_table, teacher_digest

TRAIL, SELECTION = "pseudo.parquet", "selection.json"


def select(rounds: Rounds, number: int) -> list[dict]:
    """Write the trails of round `number`, those that are not there yet; the folds' facts of the selection."""
    if rounds.recipe.pseudo.pooled:
        _select_pooled(rounds, number)
    else:
        for unit in rounds.units:
            if not _there(rounds, number, unit, _digest(rounds, number, [unit])):
                _select_unit(rounds, number, unit)
    run = rounds.run(number)
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]
    if rounds.world.leads:
        trails = [read_table(unit.folder(run) / TRAIL)[0] for unit in folds]
        write_table(run.path / TRAIL, pd.concat(trails, ignore_index=True), run.table_notes(run.info(), round=number))
    return rounds.world.lead(lambda: [read_json(unit.folder(run) / SELECTION) for unit in folds])


def with_pseudo_labels(rounds: Rounds, number: int) -> list[Unit]:
    """The units of a round with the patches that their trails add."""
    units = []
    for unit in rounds.units:
        trail = read_table(unit.folder(rounds.run(number)) / TRAIL)[0]
        added = trail.loc[trail.decision == "added", ["id", "label", "weight"]].reset_index(drop=True)
        units.append(replace(unit, round=number, pseudo=added))
    return units


def _select_unit(rounds: Rounds, number: int, unit: Unit) -> None:
    teacher = unit.folder(rounds.run(number - 1))
    pool = pool_table(rounds.setting(number), unit, teacher, pool_rows(rounds.dataset, rounds.folds, unit))
    if rounds.world.leads:
        digest = _digest(rounds, number, [unit])
        trail, facts = decide(pool, inner_table(teacher), rounds.recipe.pseudo, _previous(rounds, number, unit), digest)
        _write(rounds, number, unit, trail, facts)
    rounds.world.gather(None)  # the trail must lie on disk before any process reads it


def _select_pooled(rounds: Rounds, number: int) -> None:
    """One set of decisions on the mean of all folds, of which every fold takes what its own pool holds."""
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]
    digest = _digest(rounds, number, folds)
    if all(_there(rounds, number, unit, digest) for unit in rounds.units):
        return
    pools = {unit.name: pool_rows(rounds.dataset, rounds.folds, unit) for unit in rounds.units}
    whole = pd.concat([pools[unit.name] for unit in folds]).drop_duplicates("id").sort_values("row").reset_index(drop=True)
    tables = [pool_table(rounds.setting(number), unit, unit.folder(rounds.run(number - 1)), whole) for unit in folds]
    inner = pd.concat([inner_table(unit.folder(rounds.run(number - 1))) for unit in folds], ignore_index=True)
    if rounds.world.leads:
        for unit in rounds.units:
            own = _mean(tables).assign(fold=unit.number)
            own = own[own.id.isin(pools[unit.name].id)].reset_index(drop=True)
            trail, facts = decide(own, inner, rounds.recipe.pseudo, _previous(rounds, number, unit), digest)
            _write(rounds, number, unit, trail, facts)
    rounds.world.gather(None)


def _mean(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The folds' pool tables as one: mean logits, calibrated and plain, mean spread and mean kNN prob."""
    first = tables[0].copy()
    for name in ("logit", "view_std", "knn_prob"):
        first[name] = np.mean([table[name].to_numpy() for table in tables], axis=0)
    calibrated = [inverse_sigmoid(table.prob.clip(1e-15, 1 - 1e-15).to_numpy()) for table in tables]
    return first.assign(prob=expit(np.mean(calibrated, axis=0)))


def _digest(rounds: Rounds, number: int, units: list[Unit]) -> str:
    """Of the networks that make these pseudo-labels."""
    digests = [teacher_digest(unit.folder(rounds.run(number - 1))) for unit in units]
    return digests[0] if len(digests) == 1 else digest_text("".join(digests))


def _there(rounds: Rounds, number: int, unit: Unit, digest: str) -> bool:
    """Whether a unit's trail is written. Raises UserError where another network than the one there now made it."""
    folder = unit.folder(rounds.run(number))
    if not (folder / SELECTION).exists():
        return False
    made_by = read_json(folder / SELECTION)["network_digest"]
    if made_by != digest:
        raise UserError(
            f"{folder / TRAIL}: made by network {made_by[:12]}, {rounds.run(number - 1).path} now holds {digest[:12]};"
            f" delete {rounds.run(number).path} and later rounds, or choose another --out"
        )
    return True


def _previous(rounds: Rounds, number: int, unit: Unit) -> pd.DataFrame | None:
    return None if number == 1 else read_table(unit.folder(rounds.run(number - 1)) / TRAIL)[0]


def _write(rounds: Rounds, number: int, unit: Unit, trail: pd.DataFrame, facts: dict) -> None:
    """The trail, then its facts, which stand for both."""
    run = rounds.run(number)
    folder: Path = unit.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / TRAIL, trail, run.table_notes(run.info(), round=number))
    network = trail.network_digest.iloc[0] if len(trail) else ""
    write_json(folder / SELECTION, {**facts, "network_digest": network})
    say(f"round {number}, {unit.name}: {_words(facts)}")


def _words(facts: dict) -> str:
    added = facts["added"]
    return f"{added['tumor']:,} tumor and {added['normal']:,} normal pseudo-labels of {facts['pool']:,} pool patches"
