"""`pcam-ssl baseline --sweep KEY=A,B,...`: train one run per value under one recipe."""

import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from pcam_ssl.cross_validation.checks import warn_of_unused_keys
from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.distributed import own_rank
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder
from pcam_ssl.recipe.loading import all_stated, load_recipe, to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say, warn
from pcam_ssl.training.checkpoint import Stopped


@dataclass(frozen=True)
class SweptRun:
    """One combination of values: the folder of its run, its settings, and its whole recipe."""

    path: Path
    settings: tuple[str, ...]
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep: folders of the finished runs, and an error line for each run that failed."""

    finished: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def runs(self) -> list[Run]:
        """The finished runs, in order."""
        return [Run(Path(path)) for path in self.finished]

    def raise_failures(self) -> None:
        """Raises UserError, one line per failed run, where a run failed."""
        if self.failed:
            error = UserError(*self.failed)
            error.told = own_rank() > 0
            raise error


def plan_sweep(recipe: str | None, settings: list[str], axes: list[str], out: Path | str) -> list[SweptRun]:
    """Every combination of the values of `axes` ('KEY=A,B'), each in a folder of `out` named after its values.

    Raises UserError as `combinations` does, for a single combination, and where `out` is a run.
    """
    planned = combinations(recipe, settings, axes, out)
    if len(planned) < 2:
        raise UserError(f"--sweep {planned[0].settings[0]}: one value is no sweep; name two or more, separated by commas")
    check_folders(planned, out)
    return planned


def combinations(recipe: str | None, settings: list[str], axes: list[str], out: Path | str, name: str = "") -> list[SweptRun]:
    """Every combination of the values of `axes`, each in a folder of `out` named after its values, behind `name` where that is given.

    Where the seed is swept, all runs keep the folds of the recipe's own seed (`cv.seed`). Raises UserError, before any training, for
    unknown keys and values, for equal values in other spellings (1e-3 and 0.001), and for keys that change the folds.
    """
    parsed = [_axis(axis) for axis in axes]
    keys = [key for key, _ in parsed]
    fixed = {setting.partition("=")[0].strip() for setting in settings}
    for key in keys:
        if keys.count(key) > 1 or key in fixed:
            raise UserError(f"--sweep {key}: the key is set twice; give all its values in one --sweep, and none in --set")
        if key.startswith("cv."):
            raise UserError(f"--sweep {key}: changes the folds, so the runs cannot be compared; train them one by one")
    if "seed" in keys:
        settings = [*settings, *_fixed_folds(load_recipe(recipe or "baseline", settings))]
    planned = []
    for values in product(*(values for _, values in parsed)):
        swept = tuple(f"{key}={value}" for key, value in zip(keys, values, strict=True))
        names = [*([name] if name else []), *(folder_name(value, key) for key, value in zip(keys, values, strict=True))]
        path = Path(out) / "+".join(names)
        planned.append(SweptRun(path, swept, load_recipe("baseline" if recipe is None else recipe, [*settings, *swept])))
    _check_values_differ(planned)
    return planned


def _check_values_differ(planned: list[SweptRun]) -> None:
    """Raises UserError for two runs of one recipe. Those that share a folder, too, are left to `check_folders`."""
    known: dict[str, SweptRun] = {}
    for swept in planned:
        before = known.setdefault(to_yaml(swept.recipe), swept)
        if before.path == swept.path:
            continue
        differ = [(one, other) for one, other in zip(before.settings, swept.settings, strict=True) if one != other]
        first, second = (" ".join(settings) for settings in zip(*differ, strict=True))
        raise UserError(f"--sweep {first}: equals {second}, and each run is trained once; name one of them")


def sweep(
    recipe: str | None, settings: list[str], axes: list[str], data: Path | str, out: Path | str, only: list[int] | None = None
) -> Sweep:
    """Train the missing folds of every run of a sweep (those in `only`, where given). Other runs continue where one fails.

    Raises UserError as `plan_sweep` does, and Stopped when interrupted; the same command then continues.
    """
    planned = plan_sweep(recipe, settings, axes, out)
    if not own_rank():
        warn_of_unused_keys(*(swept.recipe for swept in planned if not Run(swept.path).paths.provenance.exists()))
    finished, failed = [], []
    for number, swept in enumerate(planned, 1):
        if not own_rank():
            say(f"{swept.path}: run {number} of {len(planned)}, {', '.join(swept.settings)}")
        if (problem := _train(swept, data, only)) is not None:
            failed.append(problem)
        elif Run(swept.path).paths.scores.exists():
            finished.append(str(swept.path))
    if not own_rank() and len(finished) + len(failed) < len(planned):
        say(f"{out}: {len(finished)} of {len(planned)} runs have all their folds; they are compared once the last fold is trained")
    return Sweep(tuple(finished), tuple(failed))


def _train(swept: SweptRun, data: Path | str, only: list[int] | None) -> str | None:
    """Train or continue a run. Returns the error in one line, None where there was none."""
    try:
        baseline(all_stated(swept.recipe), data, swept.path, only)
        return None
    except Stopped:
        raise
    except UserError as error:
        problem = f"{swept.path}: {'; '.join(error.problems)}"
    except torch.OutOfMemoryError:
        if torch.distributed.is_initialized():
            # The other processes are still waiting for this one inside the step.
            raise
        torch.cuda.empty_cache()
        problem = f"{swept.path}: out of device memory; lower train.batch_size for the whole sweep, or leave this run out"
    if not own_rank():
        warn(f"{problem}; the other runs continue")
    return problem


def folder_name(value: str, key: str = "") -> str:
    """A folder name for a value: letters, digits and `_.+-` stay, all else becomes a dash; a seed is called `seed-N`."""
    name = re.sub(r"[^\w.+-]+", "-", value).strip("-.") or "empty"
    return f"seed-{name}" if key == "seed" else name


def _fixed_folds(recipe: Recipe) -> list[str]:
    """The setting that keeps the folds and the label budget of `recipe` while its seed changes; none where `cv.seed` is set already."""
    return [f"cv.seed={recipe.seed}"] if recipe.cv.seed is None else []


def _axis(axis: str) -> tuple[str, list[str]]:
    key, equals, text = axis.partition("=")
    values = [value.strip() for value in text.split(",")]
    if not equals or not key.strip() or not all(values):
        raise UserError(f"--sweep {axis}: write KEY=VALUE,VALUE, for example --sweep model.name=resnet34,densenet121")
    return key.strip(), values


def check_folders(planned: list[SweptRun], out: Path | str) -> None:
    """Raises UserError for values that would share a folder, for folders that cannot be written, and where `out` is a run."""
    paths = [swept.path for swept in planned]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise UserError(
            f"{twice}: two of the runs would share this folder; name each value once, and give recipes of one name other file names"
        )
    for path in paths:
        check_folder("--out", path)
    if Run(Path(out)).paths.provenance.exists():
        raise UserError(f"--out {out}: is a run, and a sweep needs a folder for its runs; choose another --out")
