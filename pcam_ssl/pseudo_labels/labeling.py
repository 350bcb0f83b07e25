"""Pseudo-labels of a round: each unit takes the confident predictions of its own network of the round before. Decisions on all pool patches are written."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.folds import Unit
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_text, read_json, write_json
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.opinions import mix_opinions, opinions_of
from pcam_ssl.pseudo_labels.selection import decide
from pcam_ssl.pseudo_labels.teachers import mean_opinion, predict_pool, teachers_digest, teachers_evidence
from pcam_ssl.runs.run import DECISIONS, SELECTION
from pcam_ssl.tables import DECISION_COLUMNS, among, read_table, write_table
from pcam_ssl.terminal import say


def select(rounds: Rounds, number: int) -> list[dict]:
    """Write the missing decisions of round `number`; return the facts of the selection, one entry per fold."""
    if rounds.recipe.pseudo.pooled:
        _select_pooled(rounds, number)
    else:
        for whole in rounds.units:
            # Thresholds rest on what all inner networks of the fold say, so they share their evidence.
            evidence = cache(lambda whole=whole: teachers_evidence(rounds, number, whole))
            for unit in (whole, *whole.parts):
                digest = _digest(rounds, number, [unit])
                # Rank 0 answers for all processes: it may write the decisions before another process has looked.
                if not rounds.world.run_on_main(lambda unit=unit, digest=digest: _decided(rounds, number, unit, digest)):
                    _select_unit(rounds, number, unit, digest, evidence)
    run = rounds.run(number)
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]

    def write_all() -> list[dict]:
        whole = pd.concat([_decisions(rounds, number, unit) for unit in folds], ignore_index=True)
        if run.info().get("status") != "done" or not (run.path / DECISIONS).exists():
            write_table(run.path / DECISIONS, whole, run.table_notes(run.info(), round=number))
        return [_facts(rounds, number, unit) for unit in folds]

    return rounds.world.run_on_main(write_all)


def with_pseudo_labels(rounds: Rounds, number: int) -> list[Unit]:
    """The units of a round with their pseudo-labels. Pooled units score nothing: their teachers learned the labels they would be scored on."""
    units = []
    for unit in rounds.units:
        if rounds.recipe.pseudo.pooled:
            unit = replace(unit, score=np.zeros_like(unit.score))
        student, *parts = (_student(rounds, number, each) for each in (unit, *unit.parts))
        units.append(replace(student, parts=tuple(parts)))
    return units


def _student(rounds: Rounds, number: int, unit: Unit) -> Unit:
    start = rounds.run(number - 1).unit(unit.name) if rounds.recipe.pseudo.start == "teacher" else None
    return replace(unit, round=number, pseudo=_added(rounds, number, unit), start=start)


def _added(rounds: Rounds, number: int, unit: Unit) -> pd.DataFrame:
    """The pseudo-labels of a unit: `id`, `label`, `weight`."""
    decisions = _decisions(rounds, number, unit)
    return decisions.loc[decisions.decision == "added", ["id", "label", "weight"]].reset_index(drop=True)


def _select_unit(rounds: Rounds, number: int, unit: Unit, digest: str, evidence: Callable[[], tuple[pd.DataFrame, str]]) -> None:
    """Decide on the unit's own pool; `evidence` gives what `teachers_evidence` does."""
    pool = predict_pool(rounds, number, unit, pool_rows(rounds.dataset, rounds.folds, unit))

    def decide_and_write() -> None:
        previous = _previous(rounds, number, [unit])
        inner, cluster = evidence()
        decisions, facts = decide_mixed(rounds, number, pool, inner, previous, digest, cluster, unit.train)
        _write(rounds, number, unit, decisions, facts)
        if unit.part is None:
            say(f"round {number}, {unit.name}: {_words(facts)}")

    rounds.world.run_on_main(decide_and_write)


def _select_pooled(rounds: Rounds, number: int) -> None:
    """Decide once on the mean predictions of all folds; every unit takes the decisions on its own pool."""
    folds = [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]
    digest = _digest(rounds, number, folds)
    if rounds.world.run_on_main(lambda: all([_decided(rounds, number, unit, digest) for unit in rounds.units])):
        return
    units = [each for unit in rounds.units for each in (unit, *unit.parts)]
    pools = {unit.name: pool_rows(rounds.dataset, rounds.folds, unit) for unit in units}
    whole = pd.concat(pools.values()).drop_duplicates("id").sort_values("row").reset_index(drop=True)
    tables = [predict_pool(rounds, number, unit, whole) for unit in folds]

    def decide_and_write() -> None:
        evidence = [teachers_evidence(rounds, number, unit) for unit in folds]
        inner, cluster = pd.concat([table for table, _ in evidence], ignore_index=True), evidence[0][1]
        previous = _previous(rounds, number, rounds.units)
        learned = np.logical_or.reduce([unit.train for unit in folds])
        decisions, facts = decide_mixed(rounds, number, mean_opinion(tables), inner, previous, digest, cluster, learned)
        for unit in units:
            own = decisions[among(decisions.id, pools[unit.name].id)].reset_index(drop=True)
            _write(rounds, number, unit, own.assign(fold=np.int8(unit.number)).astype({"fold": "Int8"}), facts)
        say(f"round {number}, all folds together: {_words(facts)}")

    rounds.world.run_on_main(decide_and_write)


def decide_mixed(
    rounds: Rounds,
    number: int,
    pool: pd.DataFrame,
    inner: pd.DataFrame,
    previous: pd.DataFrame | None,
    digest: str,
    cluster: str,
    train: np.ndarray,
) -> tuple[pd.DataFrame, dict]:
    """`decide` on the mix of the recipe's opinions. `train` bool [N] over the rows of the folds: the labels that the teacher learned."""
    options = rounds.recipe.pseudo
    mix = mix_opinions(pool, inner, opinions_of(options.opinions))
    share = float(rounds.context(0).rows.label.to_numpy(np.float64)[train].mean())
    decisions, facts = decide(mix.pool, mix.inner, options, previous, digest, cluster, number, share)
    return decisions, {**facts, "opinions": mix.facts, "labelled_share": share}


def _digest(rounds: Rounds, number: int, units: list[Unit]) -> str:
    """SHA-256 of the teacher weights of these pseudo-labels."""
    digests = [teachers_digest(rounds, number, unit) for unit in units]
    return digests[0] if len(digests) == 1 else digest_text("".join(digests))


def _decided(rounds: Rounds, number: int, unit: Unit, digest: str) -> bool:
    """Whether a unit's decisions are written. Raises UserError where the teacher has changed since."""
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
    """The decisions of the round before on the pools of `units`; pooled units share one decision per patch."""
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
    fix = f"delete {rounds.run(number).path} and later rounds, and run the same command again"
    return UserError(f"{path}: missing or damaged, and students may have learned from it; {fix}")


def _write(rounds: Rounds, number: int, unit: Unit, decisions: pd.DataFrame, facts: dict) -> None:
    """Write the decisions, then their facts: a facts file means that both are complete."""
    run = rounds.run(number)
    folder: Path = run.unit(unit.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / DECISIONS, decisions, run.table_notes(run.info(), round=number))
    network = decisions.network_digest.iloc[0] if len(decisions) else ""
    write_json(folder / SELECTION, {**facts, "network_digest": network})


def _words(facts: dict) -> str:
    added = facts["added"]
    text = f"{added['tumor']:,} tumor and {added['normal']:,} normal pseudo-labels of {facts['pool']:,} pool patches"
    if facts["not_em"]:
        text += f"; {facts['not_em']}"
    if (mix := facts["opinions"]) is None:
        return text
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in mix["weights"].items())
    return f"{text}; opinions by weight: {weights}{f' (equal: {reason})' if (reason := mix['reason']) else ''}"
