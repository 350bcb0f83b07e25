"""Begin a run, find it again, or refuse the folder: a run folder belongs to one recipe, dataset and command."""

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pcam_ssl import __version__
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_json, write_text
from pcam_ssl.recipe.loading import MADE_BY, differences, recipe_digest, to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import ROUNDS, Run

RECORDED_PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "albumentations", "numpy", "pandas", "scikit-learn")


def find_run(path: Path | str, recipe: Recipe, dataset: dict[str, str], command: str) -> Run:
    """The run at `path`, begun or not. `dataset` holds `path` and `digest`.

    Raises UserError where `path` holds something else, or a run of another recipe or dataset, with the difference shown.
    """
    run = Run(Path(path))
    if run.paths.provenance.exists():
        _refuse_another(run, recipe, dataset, command)
    check_free(run)
    return run


def _refuse_another(run: Run, recipe: Recipe, dataset: dict[str, str], command: str) -> None:
    info = run.info()
    mend = "choose another --out, or delete that folder"
    if info["command"] != command:
        raise UserError(f"{run.path}: a run of `pcam-ssl {info['command']}`, not of `pcam-ssl {command}`; {mend}")
    if info["dataset_digest"] != dataset["digest"]:
        raise UserError(
            f"{run.path}: begun on dataset {info['dataset']} ({info['dataset_digest'][:12]}), this is {dataset['path']} ({dataset['digest'][:12]}); {mend}"
        )
    if info["recipe_digest"] != recipe_digest(recipe, command == ROUNDS):
        changed = differences(run.recipe, recipe, command == ROUNDS) or ["a key that another version of pcam-ssl knows"]
        raise UserError(f"{run.path}: begun with another recipe ({'; '.join(changed)}); {mend}")


def check_free(run: Run) -> None:
    """Raises UserError where a run that has not begun would lie in a folder that holds something else."""
    if run.paths.provenance.exists() or not run.path.is_dir():
        return
    if any(not _left_by_a_kill(entry) for entry in run.path.iterdir()):
        raise UserError(f"{run.path}: holds something that is no run; choose another --out")


def _left_by_a_kill(entry: Path) -> bool:
    """True for what a process killed while it began a run leaves behind."""
    return entry.name.startswith(".") or (entry.name == "recipe.yaml" and entry.read_text(encoding="utf-8").startswith(MADE_BY))


def begin_run(run: Run, recipe: Recipe, dataset: dict[str, str], command: str) -> None:
    """Write what a run is identified by; run.json comes last and stands for all of it."""
    repeat = f"pcam-ssl {command} {'ROUND_0 ' if command == ROUNDS else ''}--recipe THIS_FILE"
    write_text(run.paths.recipe, f"{MADE_BY} {__version__}. `{repeat}` repeats the run.\n{to_yaml(recipe)}")
    write_json(
        run.paths.provenance,
        {
            "command": command,
            "argv": sys.argv,
            "status": "begun",
            "recipe_digest": recipe_digest(recipe, command == ROUNDS),
            "dataset_digest": dataset["digest"],
            "dataset": str(Path(dataset["path"]).resolve()),
            "begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": versions(),
        },
    )


def versions() -> dict[str, str]:
    """Versions of Python, this package, and what its numbers depend on."""
    found = {"python": platform.python_version(), "pcam-ssl": __version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found
