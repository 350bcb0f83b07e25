"""A run folder: its files, its provenance, its lock; opened, continued or refused."""

import json
import os
import platform
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pcam_ssl import __version__
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json, write_json, write_text
from pcam_ssl.recipe.loading import differences, flatten, load_recipe, read_yaml, recipe_digest, to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.records import read_info, read_metrics, read_rounds
from pcam_ssl.terminal import say

ROUNDS = "pseudo-label"
BLEND = "blend"
ROUNDS_FILE = "rounds.json"
POOLED = "pooled"
COUNTED = ("seed", "score.resamples", "train.batch_size", "train.epochs")
"""Keys of a recipe that reports count with."""
MADE_BY = "# Made by pcam-ssl"
RECORDED_PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "albumentations", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """Names of everything inside a run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "run.json"

    @property
    def folds(self) -> Path:
        return self.path / "folds.parquet"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    def unit(self, name: str) -> Path:
        """The folder of a unit, `fold-K` or `refit`."""
        return self.path / name

    def fold(self, k: int) -> Path:
        return self.unit(f"fold-{k}")

    def fold_done(self, k: int) -> bool:
        """Whether fold `k` is complete."""
        return self.unit_done(f"fold-{k}")

    def unit_done(self, name: str) -> bool:
        """`fold.json` is written last, so it stands for the whole unit, `fold-K` or `refit`."""
        return (self.path / name / "fold.json").is_file()

    def info(self) -> dict[str, Any]:
        """What run.json says. Raises UserError where there is no run here, or it is damaged."""
        return read_info(self.path)

    def load_recipe(self) -> Recipe:
        """The recipe the run was begun with. Raises UserError for a blend: it has none, nor a network."""
        if self.provenance.exists() and (info := self.info())["command"] == BLEND:
            members = ", ".join(member["run"] for member in info["blend"]["members"])
            raise UserError(f"{self.path}: a blend has no network or recipe of its own; name one of its runs ({members})")
        self.recipe_keys()
        return load_recipe(self.recipe)

    def recipe_keys(self) -> dict[str, Any]:
        """Flat keys of recipe.yaml such as `model.name`, not validated: a run of another version, and a blend, can be shown too.

        Raises UserError where the file is absent, or is no recipe.
        """
        again = f"delete {self.path}, and the command that made it makes it again"
        if not self.recipe.exists():
            raise UserError(f"{self.recipe}: no such file; {again}")
        keys = flatten(read_yaml(self.recipe))
        wrong = next((key for key in COUNTED if not isinstance(keys.get(key, 0), int)), None)
        if wrong is not None:
            raise UserError(f"{self.recipe}: damaged ({wrong} is {keys[wrong]!r}); {again}")
        return keys

    def update(self, **facts: Any) -> None:
        """Write facts into run.json."""
        write_json(self.provenance, {**self.info(), **facts})

    def table_notes(self, info: dict[str, Any], **more: Any) -> dict[str, str]:
        """File metadata of every table of this run: digests and what the caller adds."""
        return {
            "recipe_digest": info["recipe_digest"],
            "dataset_digest": info["dataset_digest"],
            **{k: str(v) for k, v in more.items()},
        }


def run_in_use(path: Path | str, number: int | None = None) -> Run:
    """The run to predict and search with: the one at `path`, or where that has pseudo-label rounds the best of them, or round `number`.

    Raises UserError where there is no such round. What is taken is said.
    """
    folder = Path(path)
    if not (folder / ROUNDS_FILE).exists():
        if number is not None:
            raise UserError(f"--round {number}: {folder} has no pseudo-label rounds; `pcam-ssl pseudo-label {folder}` makes them")
        return Run(folder)
    verdict = read_rounds(folder)
    wanted = verdict["best"] if number is None else number
    if not 0 <= wanted < len(verdict["rounds"]):
        raise UserError(f"--round {wanted}: {folder} has rounds 0 to {len(verdict['rounds']) - 1}")
    outside = wanted == 0 and not Run(folder).provenance.exists()
    run = Run(Path(verdict["round0"])) if outside else Run(folder if wanted == 0 else folder / f"round-{wanted}")
    if number is None:
        why = "the last" if verdict["pooled"] else "the best on inner slides"
        say(f"{folder}: uses round {wanted}, {why}; name {folder}/round-R for another")
    return run


def find_run(path: Path | str, recipe: Recipe, dataset: dict[str, str], command: str) -> Run:
    """The run at `path`, begun or not. `dataset` holds `path` and `digest`.

    Raises UserError where `path` holds something else, or a run of another recipe or dataset, with the difference shown.
    """
    run = Run(Path(path))
    if run.provenance.exists():
        _refuse_another(run, recipe, dataset, command)
    elif run.path.is_dir() and any(not _left_by_a_kill(entry) for entry in run.path.iterdir()):
        raise UserError(f"{run.path}: holds something that is no run; choose another --out")
    return run


def begin_run(run: Run, recipe: Recipe, dataset: dict[str, str], command: str) -> None:
    """Write what a run is identified by; run.json comes last and stands for all of it."""
    repeat = f"pcam-ssl {command} {'ROUND_0 ' if command == ROUNDS else ''}--recipe THIS_FILE"
    write_text(run.recipe, f"{MADE_BY} {__version__}. `{repeat}` repeats the run.\n{to_yaml(recipe)}")
    write_json(
        run.provenance,
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


def _left_by_a_kill(entry: Path) -> bool:
    """True for what a process killed while it began a run leaves behind."""
    return entry.name.startswith(".") or (entry.name == "recipe.yaml" and entry.read_text(encoding="utf-8").startswith(MADE_BY))


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
        changed = differences(run.load_recipe(), recipe, command == ROUNDS) or ["a key that another version of pcam-ssl knows"]
        raise UserError(f"{run.path}: begun with another recipe ({'; '.join(changed)}); {mend}")


def versions() -> dict[str, str]:
    """Versions of Python, this package, and what its numbers depend on."""
    found = {"python": platform.python_version(), "pcam-ssl": __version__}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


@contextmanager
def lock_file(path: Path, what: str, wait_s: float = 0.0):
    """Hold the lock file `path`; a kill frees it. Raises UserError naming the holder while another process has it.

    A folder in which nothing was written meanwhile is removed again.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path.parent}: a file has that name; choose another --out") from None
    holder = path.with_suffix(".holder.json")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        try:
            owner = read_json(holder, dict)
        except UserError:  # the holder may be writing it just now
            owner = {}
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')} (since {owner.get('since', '?')})"
        raise UserError(f"{what}: {who} is writing it; wait for it or stop it, or choose another --out") from None
    try:
        write_json(holder, {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%H:%M:%S"), "argv": sys.argv})
        yield
    finally:
        holder.unlink(missing_ok=True)
        if list(path.parent.iterdir()) == [path]:
            path.unlink()
            path.parent.rmdir()
        lock.release()


class Metrics:
    """`metrics.jsonl`: one JSON object a line, appended and flushed; each carries `step`."""

    def __init__(self, path: Path):
        self.path = path

    def rewind(self, step: int) -> None:
        """Drop lines after `step`, which a resumed run will write again, and a line that a kill cut short."""
        kept = [json.dumps(event) + "\n" for event in read_metrics(self.path) if event["step"] <= step]
        write_text(self.path, "".join(kept))

    def write(self, **event: Any) -> None:
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps(event) + "\n")


DECISIONS, SELECTION = "pseudo.parquet", "selection.json"
