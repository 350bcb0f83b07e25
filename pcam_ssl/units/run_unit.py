"""`pcam-ssl run-unit`: train one unit, continue it, or find it finished."""

import platform
from pathlib import Path

from pcam_ssl.errors import Held, UserError
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say
from pcam_ssl.units.unit import Unit, is_finished, pick, read_units


class Taken(UserError):
    """Another worker trains the unit. 75 is EX_TEMPFAIL of sysexits.h: try again later."""

    exit_code = 75


def run_unit(path: Path | str, number: int, data: Path | str | None = None) -> tuple[Run, bool]:
    """Train unit `number` (counted from 0) of a file of units, or continue it. Whoever finishes the last fold of a run combines it.

    Returns its run, and whether anything was left to do.

    `data` is the dataset's place on this machine, where it is not that of the plan. A finished unit returns at once. Raises Taken where
    another worker has it, UserError where the dataset is absent or another one, and what training raises.
    """
    unit = pick(read_units(path), number, path)
    run = Run(Path(unit.run))
    if is_finished(unit):
        say(f"{unit}: finished already")
        return run, False
    dataset = check_unit_dataset(unit, path, data)
    # Not earlier: loading torch takes longer than finding a unit finished.
    from pcam_ssl.cross_validation.cross_validate import command_of, cross_validate
    from pcam_ssl.distributed import own_rank

    recipe = unit.loaded_recipe()
    try:
        return cross_validate(recipe, dataset, run.path, command_of(recipe), [unit.fold]), True
    except Held as held:
        if run.fold_done(unit.fold):
            # The other process finished the last fold at the same time, and combines the run.
            if not own_rank():
                say(f"{unit}: trained; {held.what}")
            return run, True
        taken = Taken(f"{unit}: is taken ({held.what}); nothing to do here, or run it again later")
        taken.told = held.told
        raise taken from None


def check_unit_dataset(unit: Unit, path: Path | str, data: Path | str | None) -> Path:
    """Where a unit's dataset lies on this machine. Raises UserError where it is absent, or not the one that was planned with."""
    place = Path(unit.dataset if data is None else data)
    if not place.exists():
        raise UserError(
            f"{path}: the dataset {place} is not on this machine ({platform.node()}); say where it is with --data DATASET"
        )
    from pcam_ssl.data.dataset import find_dataset

    return find_dataset(Path(path), unit.dataset, unit.dataset_digest, place).path
