"""Compare the finished rounds and write `rounds.json`."""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.data.folds import Unit, score_groups
from pcam_ssl.data.pool import pool_facts, pool_ids, pool_rows
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import read_json, write_json
from pcam_ssl.pseudo_labels.control import Control
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.precision_check import added_scores
from pcam_ssl.pseudo_labels.stopping import no_better
from pcam_ssl.pseudo_labels.teacher import inner_table, teacher_predictions
from pcam_ssl.pseudo_labels.teachers import teachers_scores
from pcam_ssl.pseudo_labels.verdict import (
    RoundTables,
    choose_round,
    chosen_scores,
    control_scores,
    inner_scores,
    like_first,
    round_in_use,
    round_rows,
    verdict_sentence,
)
from pcam_ssl.runs.run import DECISIONS, SELECTION
from pcam_ssl.tables import DECISION_COLUMNS, among, predictions, read_predictions, read_table


def round_tables(rounds: Rounds, number: int) -> RoundTables:
    """The tables of a finished round."""
    run, units = rounds.run(number), _folds(rounds)
    withheld = number > 0 and rounds.recipe.pseudo.pooled
    return RoundTables(
        number=number,
        oof=None if withheld else read_predictions(run.path / "oof.parquet"),
        inner={unit.number: inner_table(run.unit(unit.name)) for unit in units},
        decisions=read_table(run.path / DECISIONS, DECISION_COLUMNS)[0] if number else None,
        labels_used=[int(unit.train.sum()) for unit in units],
    )


def stop_after(rounds: Rounds, last: int) -> str | None:
    """The sentence of a rule against another round after `last`, or None. Pooled rounds have no inner score that is free of leakage."""
    if rounds.recipe.pseudo.pooled:
        return None
    scores = [inner_scores(round_tables(rounds, number).inner)["auroc"] for number in range(last + 1)]
    return no_better(scores, rounds.recipe.pseudo.stop_worse)


def teacher_predictions_of_pool(rounds: Rounds, number: int, truth: pd.DataFrame) -> pd.DataFrame | None:
    """Predictions of the pool patches in `truth`, each the mean over the networks whose pool holds it; None where `truth` is empty."""
    if truth.empty:
        return None
    tables = []
    for unit in _folds(rounds):
        pool = pool_rows(rounds.dataset, rounds.folds, unit)
        pool = pool[among(pool.id, truth.id)].reset_index(drop=True)
        tables.append(teacher_predictions(rounds, number, unit, pool))
    whole = pd.concat(tables, ignore_index=True)
    whole["calibrated"] = inverse_sigmoid(whole.prob.clip(1e-15, 1 - 1e-15))
    mean = whole.groupby("id")[["logit", "calibrated", "view_std"]].mean().loc[truth.id]
    return predictions(
        truth.id, truth.label, truth.wsi, -1, mean.logit, mean.view_std.to_numpy(), expit(mean.calibrated.to_numpy())
    )


def truth_of_pool(rounds: Rounds) -> pd.DataFrame:
    """`id`, `label`, `wsi` of the pool patches whose label is known; for reports only, never for training."""
    ids, patches = pool_ids(rounds.dataset, rounds.folds), rounds.dataset.patches
    return patches.loc[among(patches.id, ids) & patches.label.notna(), ["id", "label", "wsi"]].reset_index(drop=True)


def write_verdict(
    rounds: Rounds,
    last: int,
    headroom: dict | None,
    planted: dict | None,
    stopped: str | None,
    seen: list[pd.DataFrame | None],
    control: Control | None,
) -> dict:
    """Write `OUT/rounds.json` of rounds 0..last and return its values. `seen`: by round, `teacher_predictions_of_pool`."""
    score = rounds.recipe.score
    options = {"resamples": score.resamples, "seed": rounds.recipe.seed}
    tables = [round_tables(rounds, number) for number in range(last + 1)]
    groups, cluster = score_groups(rounds.folds, tables[0].oof)
    truth = truth_of_pool(rounds)
    alone = None if control is None else _of_control(control, tables[0].oof)
    rows = round_rows(tables, groups, **options, control=alone)
    for row, each, of_pool in zip(rows, tables, seen, strict=True):
        run, selected = rounds.run(each.number), each.decisions is not None
        row |= {
            "folder": str(run.path),
            "cost": run.info().get("cost"),
            "truth": added_scores(each.decisions, truth) if selected else None,
            "facts": [read_json(run.unit(unit.name) / SELECTION, dict) for unit in _folds(rounds)] if selected else None,
            "transductive": None if of_pool is None else score_report(of_pool, _slides(of_pool), **options),
        }
    pooled = rounds.recipe.pseudo.pooled
    inner = last if pooled else choose_round(tables)
    chosen = None if pooled else chosen_scores(tables, groups, **options, control=alone)
    told = None
    if control is not None:
        told = control.facts() | {"cost": control.run.info().get("cost")} | control_scores(tables[0].oof, alone, groups, **options)
    best, why = (last, "the last") if chosen is None else round_in_use(inner, chosen, told)
    verdict: dict[str, Any] = {
        "round0": str(rounds.start.path),
        "best": best,
        "best_folder": str(rounds.run(best).path),
        "best_inner": inner,
        "why": why,
        "decided_by_scores": bool(inner) and told is not None,
        "pooled": pooled,
        "unit": cluster,
        "pool": _pool(rounds),
        "headroom": headroom,
        "planted": planted,
        "teachers": None if pooled or not last else teachers_scores(rounds, tables[0].oof, groups, **options),
        "rounds": rows,
        "chosen_by_fold": chosen,
        "control": told,
        "stopped": stopped,
    }
    verdict["verdict"] = verdict_sentence(verdict)
    write_json(rounds.verdict, verdict)
    return verdict


def _of_control(control: Control, first: pd.DataFrame) -> pd.DataFrame:
    """The control's out-of-fold Predictions in the order of round 0."""
    return first if control.is_round_0 else like_first(first, read_predictions(control.run.path / "oof.parquet"), "the control")


def _slides(table: pd.DataFrame) -> pd.Series | None:
    return table.wsi if table.wsi.notna().all() else None


def _pool(rounds: Rounds) -> dict[str, float]:
    """Counts of the pool, means over folds."""
    facts = [pool_facts(rounds.dataset, rounds.folds, unit) for unit in _folds(rounds)]
    return {name: float(np.mean([fold[name] for fold in facts])) for name in facts[0]}


def _folds(rounds: Rounds) -> list[Unit]:
    return [unit for unit in rounds.units if unit.number < rounds.folds.n_folds]
