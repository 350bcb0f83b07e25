"""The pseudo-labels of a round: for each unit what its own network of the round before is sure of, with a trail for every patch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.data.folds import Unit
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_text, read_json, write_json
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.selection import decide
from pcam_ssl.pseudo_labels.teacher import inner_evidence, teacher_predictions, teacher_predictions_digest
from pcam_ssl.runs.run import DECISIONS, SELECTION
from pcam_ssl.tables import DECISION_COLUMNS, mean_over, read_table, write_table
from pcam_ssl.terminal import say


def select(rounds: Rounds, number: int) -> list[dict]:
    """Write the trails of round `number`, those that are not there yet; the folds' facts of the selection."""
    if rounds.recipe.pseudo.pooled:
        _select_pooled(rounds, number)
    else:
        for unit in rounds.units:
            digest = _digest(rounds, number, [unit])
            # The leader answers for all: it may write a trail before another process has looked.
            if not rounds.world.run_on_main(lambda unit=unit, digest=digest: _there(rounds, number, unit, digest)):
                _select_unit(rounds, number, unit, digest)
    run = rounds.run(number)
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]

    def gathered() -> list[dict]:
        whole = pd.concat([_decisions(rounds, number, unit) for unit in folds], ignore_index=True)
        if run.info().get("status") != "done" or not (run.path / DECISIONS).exists():
            write_table(run.path / DECISIONS, whole, run.table_notes(run.info(), round=number))
        return [_facts(rounds, number, unit) for unit in folds]

    return rounds.world.run_on_main(gathered)


def with_pseudo_labels(rounds: Rounds, number: int) -> list[Unit]:
    """The units of a round with the patches that their trails add; pooled ones score nothing, for nothing may come of it."""
    units = []
    for unit in rounds.units:
        if rounds.recipe.pseudo.pooled:
            unit = replace(unit, score=np.zeros_like(unit.score))
        decisions = _decisions(rounds, number, unit)
        added = decisions.loc[decisions.decision == "added", ["id", "label", "weight"]].reset_index(drop=True)
        units.append(replace(unit, round=number, pseudo=added))
    return units


def _select_unit(rounds: Rounds, number: int, unit: Unit, digest: str) -> None:
    pool = teacher_predictions(rounds, number - 1, unit, pool_rows(rounds.dataset, rounds.folds, unit))

    def decided() -> None:
        previous = _previous(rounds, number, [unit])
        inner, cluster = inner_evidence(rounds.run(number - 1).unit(unit.name), rounds.folds)
        decisions, facts = decide(pool, inner, rounds.recipe.pseudo, previous, digest, cluster)
        _write(rounds, number, unit, decisions, facts)
        say(f"round {number}, {unit.name}: {_words(facts)}")

    rounds.world.run_on_main(decided)


def _select_pooled(rounds: Rounds, number: int) -> None:
    """One set of decisions on the mean of all folds, of which every fold takes what its own pool holds."""
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]
    digest = _digest(rounds, number, folds)
    if rounds.world.run_on_main(lambda: all([_there(rounds, number, unit, digest) for unit in rounds.units])):
        return
    pools = {unit.name: pool_rows(rounds.dataset, rounds.folds, unit) for unit in rounds.units}
    whole = pd.concat(pools.values()).drop_duplicates("id").sort_values("row").reset_index(drop=True)
    tables = [teacher_predictions(rounds, number - 1, unit, whole) for unit in folds]

    def decided() -> None:
        evidence = [inner_evidence(rounds.run(number - 1).unit(unit.name), rounds.folds) for unit in folds]
        inner, cluster = pd.concat([table for table, _ in evidence], ignore_index=True), evidence[0][1]
        previous = _previous(rounds, number, rounds.units)
        decisions, facts = decide(_mean(tables), inner, rounds.recipe.pseudo, previous, digest, cluster)
        for unit in rounds.units:
            own = decisions[decisions.id.isin(pools[unit.name].id)].reset_index(drop=True)
            _write(rounds, number, unit, own.assign(fold=np.int8(unit.number)).astype({"fold": "Int8"}), facts)
        say(f"round {number}, all folds together: {_words(facts)}")

    rounds.world.run_on_main(decided)


def _mean(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The folds' pool tables as one: mean logits, calibrated and plain, mean spread and mean kNN prob."""
    first = tables[0].copy()
    for name in ("logit", "view_std", "knn_prob"):
        first[name] = mean_over([table[name] for table in tables])
    calibrated = [inverse_sigmoid(table.prob.clip(1e-15, 1 - 1e-15).to_numpy()) for table in tables]
    return first.assign(prob=expit(mean_over(calibrated)))


def _digest(rounds: Rounds, number: int, units: list[Unit]) -> str:
    """Of the networks that make these pseudo-labels."""
    digests = [teacher_predictions_digest(rounds, number - 1, unit) for unit in units]
    return digests[0] if len(digests) == 1 else digest_text("".join(digests))


def _there(rounds: Rounds, number: int, unit: Unit, digest: str) -> bool:
    """Whether a unit's trail is written. Raises UserError where another network than the one there now made it."""
    folder = rounds.run(number).unit(unit.name)
    if not (folder / SELECTION).exists():
        return False
    made_by = _facts(rounds, number, unit)["network_digest"]
    if made_by != digest:
        raise UserError(
            f"{folder / DECISIONS}: made by network {made_by[:12]}, {rounds.run(number - 1).path} now holds {digest[:12]};"
            f" delete {rounds.run(number).path} and later rounds, or choose another --out"
        )
    return True


def _previous(rounds: Rounds, number: int, units: list[Unit]) -> pd.DataFrame | None:
    """What the round before decided on each patch of the pools of `units`, which were of one mind."""
    if number == 1:
        return None
    return pd.concat([_decisions(rounds, number - 1, unit) for unit in units]).drop_duplicates("id")


def _decisions(rounds: Rounds, number: int, unit: Unit) -> pd.DataFrame:
    path = rounds.run(number).unit(unit.name) / DECISIONS
    try:
        return read_table(path, DECISION_COLUMNS)[0]
    except UserError:
        raise _damaged(path, rounds, number) from None


def _facts(rounds: Rounds, number: int, unit: Unit) -> dict:
    path = rounds.run(number).unit(unit.name) / SELECTION
    try:
        return read_json(path, {"network_digest": str, "pool": int, "added": {"tumor": int, "normal": int}})
    except UserError:
        raise _damaged(path, rounds, number) from None


def _damaged(path: Path, rounds: Rounds, number: int) -> UserError:
    mend = f"delete {rounds.run(number).path} and later rounds, and the same command makes them again"
    return UserError(f"{path}: absent or damaged, and students may have learned from what it said; {mend}")


def _write(rounds: Rounds, number: int, unit: Unit, decisions: pd.DataFrame, facts: dict) -> None:
    """The trail, then the facts of the decision, which stand for both."""
    run = rounds.run(number)
    folder: Path = run.unit(unit.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / DECISIONS, decisions, run.table_notes(run.info(), round=number))
    network = decisions.network_digest.iloc[0] if len(decisions) else ""
    write_json(folder / SELECTION, {**facts, "network_digest": network})


def _words(facts: dict) -> str:
    added = facts["added"]
    return f"{added['tumor']:,} tumor and {added['normal']:,} normal pseudo-labels of {facts['pool']:,} pool patches"
