"""`pcam-ssl plan`: recipes, values of a sweep, seeds and folds as units of work."""

from dataclasses import replace
from pathlib import Path

from pcam_ssl.cross_validation.checks import check_dataset
from pcam_ssl.cross_validation.cross_validate import planned_folds
from pcam_ssl.cross_validation.sweep import SweptRun, check_folders, combinations, folder_name
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.unused_keys import unused_keys
from pcam_ssl.runs.begin import check_free
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say, warn
from pcam_ssl.units.unit import Unit, check_same_run


def plan_units(
    recipes: list[str],
    data: Path | str,
    settings: list[str],
    axes: list[str],
    out: Path | str,
    folds: list[int] | None = None,
    seeds: list[int] | None = None,
) -> list[Unit]:
    """A unit for each fold of each run: every recipe with every combination of the values of `axes` ('KEY=A,B') and `seeds`.

    A run lies in `out` in a folder named after its recipe, values and seed. Runs of several seeds keep the folds of the recipe's own seed.
    Nothing is written. Raises UserError for unknown recipes, keys and values, folds that are not there or cannot be trained, units that
    would be there twice, and run folders that hold something else.
    """
    for option, values in (("RECIPE", recipes), ("--folds", folds or []), ("--seeds", seeds or [])):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise UserError(f"{option} {twice}: is named twice, and each unit is trained once; name it once")
    rounds = next((each for each in [*settings, *axes] if each.strip().startswith("pseudo.")), None)
    if rounds is not None:
        raise UserError(
            f"{rounds}: pseudo-label rounds build on each other, so they are no units of work; plan the runs without it, and then"
            " `pcam-ssl pseudo-label RUN` on each"
        )
    axes = axes + ([f"seed={','.join(map(str, seeds))}"] if seeds else [])
    planned = [run for recipe in recipes for run in combinations(recipe, settings, axes, out, folder_name(Path(recipe).stem))]
    check_folders(planned, out)
    for line in dict.fromkeys(line for swept in planned for line in unused_keys(swept.recipe)):
        warn(line)
    dataset = open_dataset(data)
    for recipe in {swept.recipe.data.allow_conflicts: swept.recipe for swept in planned}.values():
        check_dataset(recipe, dataset)
    units = []
    for swept in planned:
        try:
            units += _units(swept, dataset, data, folds)
        except UserError as error:
            named = error.where in (str(swept.path), str(swept.path.absolute()))
            which = f"{swept.path}: " if len(planned) > 1 and not named else ""
            raise UserError(*(f"{which}{problem}" for problem in error.problems)) from None
    if folds is not None and any(len(folds) < unit.folds for unit in units):
        say("--folds: not all of a run's folds are planned; it is combined once the others are trained, too")
    return [replace(unit, unit=number, units=len(units)) for number, unit in enumerate(units)]


def _units(swept: SweptRun, dataset: Dataset, data: Path | str, folds: list[int] | None) -> list[Unit]:
    """The units of a run, not numbered yet. Raises UserError as `plan_units` does."""
    run = Run(swept.path.absolute())
    check_free(run)
    n_folds = planned_folds(swept.recipe, dataset, run).n_folds
    unknown = [k for k in folds or [] if not 0 <= k < n_folds]
    if unknown:
        raise UserError(f"--folds {unknown[0]}: {swept.path} has folds 0 to {n_folds - 1}")
    units = [
        Unit(
            unit=0,
            units=0,
            run=str(run.path),
            fold=k,
            folds=n_folds,
            seed=swept.recipe.seed,
            dataset=str(Path(data).absolute()),
            dataset_digest=dataset.digest,
            recipe=swept.recipe.dump(),
        )
        for k in (range(n_folds) if folds is None else folds)
    ]
    if run.paths.provenance.exists():
        check_same_run(units[0], run)
    return units
