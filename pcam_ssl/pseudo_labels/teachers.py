"""The networks that label the pool: round 0's, joined in round 1 by networks of other seeds on the same labels (`pseudo.teachers`).

A student of soft labels by several networks learns in one network what their mean knows (distillation: Hinton et al. 2015,
arXiv:1503.02531; on unlabelled patches: Radosavovic et al. 2018). Each further network trains like round 0, on the labels of its fold alone.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.cross_validation.aggregate import aggregate_run
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.cross_validate import train_missing
from pcam_ssl.data.folds import Unit, write_folds
from pcam_ssl.device import choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.files import digest_text
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.teacher import (
    inner_evidence,
    pool_table,
    teacher_digest,
    teacher_predictions,
    teacher_predictions_digest,
)
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.begin import begin_run, find_run
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import calibrated_logits, mean_over, read_predictions
from pcam_ssl.terminal import say

SEEDS_APART = 1000


def check_number(rounds: Rounds) -> None:
    """Raises UserError where further networks would be the same as the first, or where round 0 is a blend."""
    if rounds.recipe.pseudo.teachers == 1:
        return
    if rounds.members:
        raise UserError(f"pseudo.teachers: {rounds.start.path} is a blend, whose runs are the teachers; leave the key out")
    if rounds.start.recipe.optim.name == "lbfgs":
        raise UserError(
            "pseudo.teachers: heads fitted to the optimum (optim.name=lbfgs) are the same with every seed; leave the key out, or start"
            " from a run that trains by adamw"
        )


def train_teachers(rounds: Rounds) -> None:
    """Train the further networks of round 1, or what of them is missing."""
    for run in further_teachers(rounds):
        recipe = _recipe(rounds, run)
        context = _context(rounds, run, recipe)
        if rounds.world.run_on_main(lambda run=run, recipe=recipe: _begin(rounds, run, recipe)):
            for unit in rounds.units:
                train_missing(context, unit)
            rounds.world.run_on_main(lambda context=context: aggregate_run(context, None))


def further_teachers(rounds: Rounds) -> list[Run]:
    """The runs of the further networks, begun or not."""
    return [Run(rounds.out / "teachers" / str(number)) for number in range(1, rounds.recipe.pseudo.teachers)]


def predict_pool(rounds: Rounds, number: int, unit: Unit, pool: pd.DataFrame) -> pd.DataFrame:
    """What the teachers of round `number` say of the patches `pool`: columns as of `teacher.pool_table`, calibrated logits averaged."""
    tables = [teacher_predictions(rounds, number - 1, unit, pool)]
    if number == 1:
        for run in further_teachers(rounds):
            tables.append(pool_table(_context(rounds, run, run.recipe), unit, pool, rounds.recipe.pseudo.pooled))
    return mean_opinion(tables)


def teachers_evidence(rounds: Rounds, number: int, unit: Unit) -> tuple[pd.DataFrame, str]:
    """`teacher.inner_evidence` of the teachers of round `number`, averaged as the pool is."""
    found = [inner_evidence(run.unit(unit.whole), rounds.folds) for run in _runs(rounds, number)]
    first = found[0][0]
    return mean_opinion([table.set_index("id").loc[first.id].reset_index() for table, _ in found]), found[0][1]


def teachers_digest(rounds: Rounds, number: int, unit: Unit) -> str:
    """SHA-256 of the weights of the teachers of round `number`."""
    digests = [teacher_predictions_digest(rounds, number - 1, unit)]
    if number == 1:
        digests += [teacher_digest(run.unit(unit.name)) for run in further_teachers(rounds)]
    return digests[0] if len(digests) == 1 else digest_text("".join(digests))


def mean_opinion(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same patches averaged: logits before and after calibration, spread over views, probs of kNN and graph."""
    if len(tables) == 1:
        return tables[0]
    first = tables[0].copy()
    for name in ("logit", "view_std", "knn_prob", "graph_prob"):
        first[name] = mean_over([table[name] for table in tables])
    return first.assign(prob=expit(mean_over([calibrated_logits(table.prob) for table in tables])))


def teachers_scores(rounds: Rounds, first: pd.DataFrame, groups, **options: int) -> dict[str, Any] | None:
    """What rounds.json says of several teachers: their number, cost, and how their mean scores against round 0; None for one."""
    runs = further_teachers(rounds)
    if not runs or not all(run.paths.scores.exists() for run in runs):
        return None
    tables = [first, *(read_predictions(run.path / "oof.parquet").set_index("id").loc[first.id].reset_index() for run in runs)]
    probs = expit(mean_over([calibrated_logits(table.prob) for table in tables]))
    costs = [run.info().get("cost") or {} for run in runs]
    passes = [cost.get("patch_passes") for cost in costs]
    labels = first.label.to_numpy(np.int64)
    return {
        "n": len(tables),
        "folders": [str(run.path) for run in runs],
        "cost": {
            "patch_passes": None if None in passes else sum(passes),
            "cached": all(cost.get("cached", False) for cost in costs),
        },
        "against_round_0": paired_differences(labels, first.prob, probs, groups, **options),
    }


def _runs(rounds: Rounds, number: int) -> list[Run]:
    return [rounds.run(number - 1), *(further_teachers(rounds) if number == 1 else [])]


def _recipe(rounds: Rounds, run: Run) -> Recipe:
    """Round 0's recipe with another seed; labels and folds stay."""
    own = rounds.start.recipe
    drawn = own.seed if own.cv.seed is None else own.cv.seed
    seed = (own.seed + SEEDS_APART * int(run.path.name)) % 2**31
    cv = own.cv.model_copy(update={"seed": drawn})
    return own.model_copy(update={"seed": seed, "cv": cv, "score": own.score.model_copy(update={"floor": False})})


def _context(rounds: Rounds, run: Run, recipe: Recipe) -> RunContext:
    precision = choose_precision(rounds.world.device, recipe.train.precision, recipe.train.channels_last)
    return RunContext(
        recipe, rounds.dataset, rounds.folds, run, rounds.world, precision, rounds.workers, frozen=rounds.context(0).frozen
    )


def _begin(rounds: Rounds, run: Run, recipe: Recipe) -> bool:
    """Begin a further teacher, or open it again. Returns whether it is still to be trained."""
    dataset = {"path": str(rounds.dataset.path), "digest": rounds.dataset.digest}
    command = rounds.start.info()["command"]
    find_run(run.path, recipe, dataset, command)
    if not run.paths.provenance.exists():
        begin_run(run, recipe, dataset, command)
    if not run.paths.folds.exists():
        write_folds(rounds.folds, run.paths.folds, run.table_notes(run.info()))
    if run.info().get("status") == "done" and run.paths.scores.exists():
        return False
    start = rounds.start.info()
    run.update(
        **{key: start[key] for key in ("device", "processes", "precision", "selected_on_fold", "learned_from_pool") if key in start}
    )
    say(f"{run.path}: a further teacher, seed {recipe.seed}, in {rounds.folds.n_folds} folds")
    return True
