"""A unit of work, a fold of a run, as a line of JSON; the file of such lines; and whether a unit is finished."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import misfit
from pcam_ssl.recipe.loading import all_stated, differences, flatten, validate
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run

SHAPE = {
    "unit": int,
    "units": int,
    "run": str,
    "fold": int,
    "folds": int,
    "seed": int,
    "dataset": str,
    "dataset_digest": str,
    "recipe": dict,
}
AGAIN = "`pcam-ssl plan RECIPE > FILE` makes it again"


@dataclass(frozen=True)
class Unit:
    """A fold of a run, and all that a worker must know to train it."""

    unit: int
    """Its place in the file, from 0."""
    units: int
    """How many units the file holds, so that a file that was cut short is noticed."""
    run: str
    """Absolute path of the run folder."""
    fold: int
    folds: int
    """How many folds the run has."""
    seed: int
    dataset: str
    """Absolute path of the DATASET, where it was planned."""
    dataset_digest: str
    recipe: dict[str, Any]
    """Every key of the recipe."""

    def __str__(self) -> str:
        return f"unit {self.unit} (fold {self.fold} of {self.run})"

    @property
    def line(self) -> str:
        """The unit as one line of JSON."""
        return json.dumps(asdict(self), allow_nan=False)

    def loaded_recipe(self) -> Recipe:
        """The recipe. Raises UserError where this version of pcam-ssl does not know one of its keys."""
        # The plan has told the keys without effect, so its units must not.
        return all_stated(validate(self.recipe, f"of {self}"))


def read_units(path: Path | str) -> list[Unit]:
    """The units of a file that `pcam-ssl plan` wrote. Raises UserError for any other file, one cut short, and units that are there twice."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; {AGAIN}") from None
    except (IsADirectoryError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a file of units ({first_line(error)}); {AGAIN}") from None
    units = [_read_line(path, number, line) for number, line in enumerate(lines)]
    if not units:
        raise UserError(f"{path}: holds no unit; {AGAIN}")
    wrong = next((number for number, unit in enumerate(units) if unit.unit != number), None)
    if wrong is not None:
        raise UserError(
            f"{path}: line {wrong + 1} holds unit {units[wrong].unit}, not {wrong}: lines are missing or moved; {AGAIN}"
        )
    if len(units) != units[0].units:
        raise UserError(f"{path}: holds {len(units)} units of {units[0].units}: cut short or joined with another; {AGAIN}")
    check_twice(units, str(path))
    return units


def _read_line(path: Path, number: int, line: str) -> Unit:
    try:
        values = json.loads(line)
        problem = misfit(values, SHAPE)
    except (ValueError, RecursionError) as error:
        problem = first_line(error)
    if problem is not None:
        raise UserError(f"{path}: line {number + 1} is no unit, or cut short ({problem}); {AGAIN}")
    return Unit(**{name: values[name] for name in SHAPE})


def check_twice(units: list[Unit], where: str) -> None:
    """Raises UserError where two units are the same fold of the same run."""
    first: dict[tuple[str, int], Unit] = {}
    for unit in units:
        same = first.setdefault((unit.run, unit.fold), unit)
        if same is not unit:
            raise UserError(
                f"{where}: units {same.unit} and {unit.unit} are both fold {unit.fold} of {unit.run}; name each fold once"
            )


def pick(units: list[Unit], number: int, path: Path | str) -> Unit:
    """Unit `number`, counted from 0. Raises UserError where there is none."""
    if not 0 <= number < len(units):
        raise UserError(f"{path}: has no unit {number}; it holds units 0 to {len(units) - 1}, counted from 0")
    return units[number]


def is_finished(unit: Unit) -> bool:
    """Whether nothing is left to do for a unit: its fold is trained, and its run combined unless other folds are missing.

    Raises UserError where its run folder holds a run of another recipe or dataset. Keys that the plan leaves to the device (`auto`) may
    have any value in the run.
    """
    run = Run(Path(unit.run))
    if not run.paths.provenance.exists():
        return False
    check_same_run(unit, run)
    if not run.fold_done(unit.fold):
        return False
    return is_combined(run) or not all(run.fold_done(k) for k in range(unit.folds))


def is_combined(run: Run) -> bool:
    """Whether all folds of a run are combined: its scores and its page are written."""
    paths = run.paths
    return all(path.exists() for path in (paths.provenance, paths.scores, paths.report)) and run.info().get("status") == "done"


def check_same_run(unit: Unit, run: Run) -> None:
    """Raises UserError where a run that has begun is not the unit's."""
    info = run.info()
    mend = "plan into another --out, or delete that folder"
    if info["dataset_digest"] != unit.dataset_digest:
        there, planned = info["dataset_digest"][:12], unit.dataset_digest[:12]
        raise UserError(
            f"{run.path}: begun on dataset {info['dataset']} ({there}), {unit} is of {unit.dataset} ({planned}); {mend}"
        )
    left_open = {key for key, value in flatten(unit.recipe).items() if value == "auto"}
    changed = [each for each in differences(run.recipe, unit.loaded_recipe()) if each.partition(": ")[0] not in left_open]
    if changed:
        raise UserError(f"{run.path}: begun with another recipe ({'; '.join(changed)}); {mend}")
