"""The control of pseudo-label rounds: the students' training on the labels alone. What rounds gain over it, longer training does not give."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pcam_ssl.cross_validation.aggregate import aggregate_run
from pcam_ssl.cross_validation.cross_validate import train_missing
from pcam_ssl.cross_validation.training_data import steps_per_epoch, training_set
from pcam_ssl.data.folds import Unit
from pcam_ssl.files import remove_folder
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.labeling import with_pseudo_labels
from pcam_ssl.recipe.loading import differences, recipe_digest
from pcam_ssl.runs.run import ROUNDS, Run
from pcam_ssl.terminal import say


@dataclass(frozen=True)
class Control:
    """A finished control: a run on the labels alone, or round 0 itself.

    `steps` and `round_0_steps` are optimizer steps by fold, None where heads are fitted to the optimum; the latter also where round 0 is
    a blend. `epochs`: how many epochs of the labels alone take `steps`.
    """

    run: Run
    is_round_0: bool
    of_round: int
    steps: list[int] | None
    round_0_steps: list[int] | None
    epochs: int | None

    def facts(self) -> dict[str, Any]:
        """What rounds.json says of it beside its scores."""
        folder = None if self.is_round_0 else str(self.run.path)
        names = ("is_round_0", "of_round", "steps", "round_0_steps", "epochs")
        return {"folder": folder, **{name: getattr(self, name) for name in names}}


def find_or_train_control(rounds: Rounds, last: int) -> Control | None:
    """The control of rounds 1..last: trained on the labels alone, with the steps and the seed of the student of round `last`.

    One that is there is taken; one of another round or other steps is trained again. None where there is nothing to compare (no round was
    made, or pooled rounds have no out-of-fold scores), and where `pseudo.control` is false and none is there.
    """
    if not last or rounds.recipe.pseudo.pooled:
        return None
    if repeats_round_0(rounds):
        return Control(rounds.start, True, last, None, None, None)
    units = control_units(rounds, last)
    control = _described(rounds, last, units)
    wanted = {"round": last, "steps": {each.name: each.steps for unit in units for each in (unit, *unit.parts)}}
    world, run = rounds.world, rounds.control
    if world.run_on_main(lambda: _fits(rounds, wanted) and run.info().get("status") == "done" and run.paths.scores.exists()):
        return control
    if not rounds.recipe.pseudo.control:
        return None
    world.run_on_main(lambda: _begin(rounds, wanted))
    context = rounds.context_of(run, last)
    for unit in units:
        train_missing(context, unit)
    world.run_on_main(lambda: aggregate_run(context, rounds.colour_baseline()))
    return control


def repeats_round_0(rounds: Rounds) -> bool:
    """Whether the control would repeat round 0 to the bit.

    Heads fitted to the optimum depend on neither seed nor steps. A student that is trained by gradient has a seed of its own, so its
    control differs from round 0 even after as many steps.
    """
    if rounds.members or rounds.recipe.optim.name != "lbfgs":
        return False
    return not differences(rounds.start.recipe, rounds.recipe)


def control_units(rounds: Rounds, number: int) -> list[Unit]:
    """The folds as the students of round `number` trained them, with seed and steps, but without pseudo-labels. Nothing is refitted.

    Students that start from their teacher have taken the steps of all rounds by then, so the control starts from round 0 and takes them all.
    """
    students = [unit for unit in with_pseudo_labels(rounds, number) if unit.number < rounds.folds.n_folds]
    return [
        replace(_labels_alone(rounds, unit), parts=tuple(_labels_alone(rounds, part) for part in unit.parts)) for unit in students
    ]


def _labels_alone(rounds: Rounds, student: Unit) -> Unit:
    """The student's training without its pseudo-labels. `round` stays, since the seed depends on it."""
    if rounds.recipe.optim.name == "lbfgs":
        return replace(student, pseudo=None)
    if student.start is None:
        return replace(student, pseudo=None, steps=_steps(rounds, student))
    earlier = [_of_round(rounds, number, student.name) for number in range(1, student.round)]
    steps = sum(_steps(rounds, each) for each in (*earlier, student))
    return replace(student, pseudo=None, steps=steps, start=rounds.start.unit(student.name))


def _of_round(rounds: Rounds, number: int, name: str) -> Unit:
    """The student of that name in an earlier round."""
    units = with_pseudo_labels(rounds, number)
    return next(each for unit in units for each in (unit, *unit.parts) if each.name == name)


def _steps(rounds: Rounds, unit: Unit) -> int:
    """Steps per epoch that a unit's patches ask for."""
    patches = training_set(rounds.context(0), unit)
    return steps_per_epoch(rounds.recipe, len(patches), patches.n_labelled)


def _described(rounds: Rounds, last: int, units: list[Unit]) -> Control:
    recipe = rounds.recipe
    if recipe.optim.name == "lbfgs":
        return Control(rounds.control, False, last, None, None, None)
    steps = [recipe.train.epochs * unit.steps for unit in units]
    labels = [int(unit.train.sum()) for unit in units]
    each = [steps_per_epoch(recipe, n) for n in labels]
    own = None if rounds.members else rounds.start.recipe
    before = None
    if own is not None and own.optim.name != "lbfgs":
        before = [own.train.epochs * steps_per_epoch(own, n) for n in labels]
    return Control(rounds.control, False, last, steps, before, round(float(np.mean(np.divide(steps, each)))))


def _fits(rounds: Rounds, wanted: dict[str, Any]) -> bool:
    """Whether the control that is there, finished or not, is the one that is wanted."""
    if not rounds.control.paths.provenance.exists():
        return False
    info = rounds.control.info()
    mine = (wanted, recipe_digest(rounds.recipe, rounds=True), rounds.dataset.digest, rounds.start.info()["recipe_digest"])
    return mine == (info.get("control_of"), info["recipe_digest"], info["dataset_digest"], info.get("round_0_digest"))


def _begin(rounds: Rounds, wanted: dict[str, Any]) -> None:
    run = rounds.control
    if run.paths.provenance.exists() and run.info()["command"] == ROUNDS and not _fits(rounds, wanted):
        say(f"{run.path}: the control of other rounds; it is trained again")
        remove_folder(run.path)
    if rounds.begin(run, control_of=wanted, learned_from_pool=False):
        as_long = "to the optimum" if rounds.recipe.optim.name == "lbfgs" else f"as long as the students of round {wanted['round']}"
        say(f"{run.path}: the control, trained on the labels alone {as_long}, in {rounds.folds.n_folds} folds")
