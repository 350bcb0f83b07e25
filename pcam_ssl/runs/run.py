"""A run folder: its files, its provenance, its lock; opened, continued or refused."""

import json
import os
import platform
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pcam_ssl import __version__
from pcam_ssl.errors import Held, UnknownName, UserError, nearest
from pcam_ssl.files import StrPath, check_target, read_json, write_json, write_text
from pcam_ssl.recipe.loading import MADE_BY, differences, flatten, load_recipe, recipe_digest, to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.recipe.yaml_text import read_yaml
from pcam_ssl.records import read_info, read_metrics, read_rounds, read_scores
from pcam_ssl.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import pandas as pd

    from pcam_ssl.data.dataset import Dataset
    from pcam_ssl.evaluation.scores import RunScores
    from pcam_ssl.models.artefact import CalibratedNetwork
    from pcam_ssl.report.report import Report
    from pcam_ssl.results import Predictions

ROUNDS = "pseudo-label"
BLEND = "blend"
ROUNDS_FILE = "rounds.json"
POOLED = "pooled"
CONTROL = "control"
TABLES = ("knn", "blend", "graph", "spatial")
"""Further predictions of a run with neighbours, a graph or smoothing in space, named as RUN:knn, RUN:blend, RUN:graph and RUN:spatial."""
COUNTED = ("seed", "score.resamples", "train.batch_size", "train.epochs")
"""Keys of a recipe that reports count with."""
RECORDED_PACKAGES = ("torch", "torchvision", "timm", "pytorch-metric-learning", "albumentations", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class RunPaths:
    """Where the files of a run folder lie, whether they are there or not."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    @property
    def provenance(self) -> Path:
        return self.folder / "run.json"

    @property
    def folds(self) -> Path:
        return self.folder / "folds.parquet"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.json"

    @property
    def oof(self) -> Path:
        return self.folder / "oof.parquet"

    @property
    def test(self) -> Path:
        return self.folder / "test.parquet"

    @property
    def submission(self) -> Path:
        return self.folder / "submission.csv"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def card(self) -> Path:
        return self.folder / "model-card.md"


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder. What it holds is read when asked for and never kept, so that it is always what the folder says now.

    Every attribute raises UserError naming the file where it is absent or damaged. A Run stands for its folder wherever a path is taken.
    """

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        if not self.paths.provenance.exists():
            return f"Run({str(self.path)!r}): not begun"
        try:
            info = self.info()
            shown = f"Run({str(self.path)!r}): {info['command']}, {info.get('status', 'begun')}"
            return f"{shown}, AUROC {self.scores['auroc']}" if self.paths.scores.exists() else shown
        except UserError as error:
            return f"Run({str(self.path)!r}): {error.problems[0]}"

    def _repr_html_(self) -> str:
        from pcam_ssl.results import run_html

        return run_html(self)

    @property
    def paths(self) -> RunPaths:
        """Where its files lie."""
        return RunPaths(self.path)

    @property
    def recipe(self) -> Recipe:
        """The recipe the run was begun with. Raises UserError for a blend: it has none, nor a network."""
        if self.paths.provenance.exists() and (info := self.info())["command"] == BLEND:
            members = ", ".join(member["run"] for member in info["blend"]["members"])
            raise UserError(f"{self.path}: a blend has no network or recipe of its own; name one of its runs ({members})")
        self.recipe_keys()
        return load_recipe(self.paths.recipe)

    @property
    def scores(self) -> "RunScores":
        """Scores with intervals: `run.scores["auroc"]` out of fold; `held_out`, `colour_baseline` and the whole `file` beside it.

        Raises UserError where the run is not finished.
        """
        from pcam_ssl.evaluation.scores import RunScores

        return RunScores(read_scores(self.path))

    @property
    def oof(self) -> "pd.DataFrame":
        """Out-of-fold Predictions, a row a labelled patch: id, label, wsi, fold, logit, prob, view_std."""
        return self._predictions(self.paths.oof)

    @property
    def test(self) -> "pd.DataFrame":
        """Predictions of the test split: a row a patch and fold, and the mean over folds as fold -1. Columns as `oof`."""
        return self._predictions(self.paths.test)

    @property
    def folds(self) -> "pd.DataFrame":
        """The folds, a row a labelled patch: id, wsi, group, fold, visible, and a column `inner_K` for each fold K."""
        from pcam_ssl.tables import FOLD_COLUMNS, read_table

        self._require(self.paths.folds)
        return read_table(self.paths.folds, FOLD_COLUMNS)[0]

    @property
    def dataset(self) -> "Dataset":
        """The dataset it was trained on. Raises UserError where that is gone, or another one by now."""
        from pcam_ssl.data.dataset import find_dataset

        info = self.info()
        return find_dataset(self.path, info["dataset"], info["dataset_digest"], None)

    @property
    def networks(self) -> "FoldNetworks":
        """Its trained networks by fold, loaded when asked for: `run.networks[0]`, `run.networks["refit"]`.

        A network is an `nn.Module` that takes uint8 patches `[B, H, W, 3]` and returns logits `[B]`; its `prob` is calibrated.
        """
        return FoldNetworks(self)

    @property
    def best(self) -> "Run":
        """The pseudo-label round in use: the best on inner slides where rounds gained over round 0 and the control; else the run itself."""
        return run_in_use(self.path)

    @property
    def card(self) -> str:
        """model-card.md. Raises UserError where no report has been written yet."""
        self._require(self.paths.card, f"`pcam-ssl report {quote(str(self.path))}` writes it")
        return self.paths.card.read_text(encoding="utf-8")

    def table(self, name: str) -> "RunTable":
        """Further predictions of a run: `knn`, `blend` (of head and kNN), `graph` (label propagation) or `spatial` (smoothed in space), as `blend` and `compare` take them."""
        if name not in TABLES:
            raise UserError(f"table {name!r}: choose {', '.join(TABLES)}.{nearest(name, TABLES)}")
        return RunTable(self, name)

    def predict(self, source: "StrPath | np.ndarray | Sequence[StrPath]", **options: Any) -> "Predictions":
        """Predictions of new patches: as `pcam_ssl.predict(run, source, ...)`."""
        from pcam_ssl.api import predict

        return predict(self, source, **options)

    def report(self, **options: Any) -> "Report":
        """Its report page, written: as `pcam_ssl.report(run, ...)`."""
        from pcam_ssl.api import report

        return report(self, **options)

    def submission(self, path: "StrPath") -> Path:
        """Copy its submission, `id,label` in Kaggle's order, to `path`. Raises UserError where it has none or the file cannot be written."""
        self._require(self.paths.submission, "a test split with Kaggle's sample submission gives one")
        check_target("submission", path, ".csv")
        shutil.copyfile(self.paths.submission, path)
        return Path(path)

    def _predictions(self, path: Path) -> "pd.DataFrame":
        from pcam_ssl.tables import read_predictions

        self._require(path)
        return read_predictions(path)

    def _require(self, path: Path, mend: str = "") -> None:
        if path.exists():
            return
        info = self.info()
        if not mend:
            done = info.get("status") == "done"
            mend = "its command does not write one" if done else "run its command again, it goes on where it stopped"
        raise UserError(f"{path}: not there; {mend}")

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
        if not self.paths.provenance.exists():
            check_no_dataset(self.path)
        return read_info(self.path)

    def recipe_keys(self) -> dict[str, Any]:
        """Flat keys of recipe.yaml such as `model.name`, not validated: a run of another version, and a blend, can be shown too.

        Raises UserError where the file is absent, or is no recipe.
        """
        again = f"delete {self.path}, and the command that made it makes it again"
        if not self.paths.recipe.exists():
            raise UserError(f"{self.paths.recipe}: no such file; {again}")
        keys = flatten(read_yaml(self.paths.recipe))
        wrong = next((key for key in COUNTED if not isinstance(keys.get(key, 0), int)), None)
        if wrong is not None:
            raise UserError(f"{self.paths.recipe}: damaged ({wrong} is {keys[wrong]!r}); {again}")
        return keys

    def update(self, **facts: Any) -> None:
        """Write facts into run.json."""
        write_json(self.paths.provenance, {**self.info(), **facts})

    def table_notes(self, info: dict[str, Any], **more: Any) -> dict[str, str]:
        """File metadata of every table of this run: digests and what the caller adds."""
        return {
            "recipe_digest": info["recipe_digest"],
            "dataset_digest": info["dataset_digest"],
            **{k: str(v) for k, v in more.items()},
        }


@dataclass(frozen=True)
class FoldNetworks:
    """The trained networks of a run by number of fold, and "refit" for that of all labelled slides. Each is loaded when asked for."""

    run: Run

    @property
    def names(self) -> "list[int | str]":
        """Numbers of the folds whose network is there, and "refit" where that is."""
        found = [path.parent.name for path in self.run.path.glob("*/model.safetensors")]
        folds = sorted(int(name[5:]) for name in found if name.startswith("fold-") and name[5:].isdigit())
        return [*folds, *(["refit"] if "refit" in found else [])]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> "Iterator[CalibratedNetwork]":
        return (self[name] for name in self.names)

    def __getitem__(self, name: int | str) -> "CalibratedNetwork":
        """Raises UnknownName for a network that is not there, and UserError for a damaged one."""
        from pcam_ssl.models.artefact import load_calibrated

        if name not in self.names:
            there = ", ".join(map(str, self.names)) or "none"
            raise UnknownName(f"{self.run.path}: has no network {name!r}; it has {there}")
        return load_calibrated(self.run.unit(f"fold-{name}" if isinstance(name, int) else name))

    def __repr__(self) -> str:
        return f"networks of {self.run.path}: {', '.join(map(str, self.names)) or 'none yet'}"


@dataclass(frozen=True)
class RunTable:
    """One of the further tables of predictions of a run; stands for RUN:knn, RUN:blend, RUN:graph or RUN:spatial wherever a run is named."""

    run: Run
    name: str

    def __fspath__(self) -> str:
        return f"{self.run.path}:{self.name}"

    @property
    def oof(self) -> "pd.DataFrame":
        """Out-of-fold Predictions. Raises UserError where the run has no such table."""
        return self.run._predictions(self.run.path / f"oof-{self.name}.parquet")

    @property
    def test(self) -> "pd.DataFrame":
        """Predictions of the test split, the mean over folds as fold -1."""
        return self.run._predictions(self.run.path / f"test-{self.name}.parquet")


def run_in_use(path: Path | str, number: int | None = None) -> Run:
    """The run to predict and search with: the one at `path`, or where that has pseudo-label rounds the one that the verdict puts in use, or round `number`.

    Raises UserError where there is no such round. What is taken is said.
    """
    folder = Path(path)
    if not (folder / ROUNDS_FILE).exists():
        if number is not None:
            check_no_dataset(folder)
            raise UserError(
                f"--round {number}: {folder} has no pseudo-label rounds; `pcam-ssl pseudo-label {quote(str(folder))}` makes them"
            )
        return Run(folder)
    verdict = read_rounds(folder)
    wanted = verdict["best"] if number is None else number
    if not 0 <= wanted < len(verdict["rounds"]):
        raise UserError(f"--round {wanted}: {folder} has rounds 0 to {len(verdict['rounds']) - 1}")
    outside = wanted == 0 and not Run(folder).paths.provenance.exists()
    run = Run(Path(verdict["round0"])) if outside else Run(folder if wanted == 0 else folder / f"round-{wanted}")
    if number is None:
        # Verdicts of earlier versions give no reason: they took the best round on inner slides.
        why = verdict.get("why", "the last" if verdict["pooled"] else "the best on inner slides")
        say(f"{folder}: uses round {wanted}, {why}; name {folder}/round-R for another")
    return run


def find_run(path: Path | str, recipe: Recipe, dataset: dict[str, str], command: str) -> Run:
    """The run at `path`, begun or not. `dataset` holds `path` and `digest`.

    Raises UserError where `path` holds something else, or a run of another recipe or dataset, with the difference shown.
    """
    run = Run(Path(path))
    if run.paths.provenance.exists():
        _refuse_another(run, recipe, dataset, command)
    check_free(run)
    return run


def check_no_dataset(path: Path) -> None:
    """Raises UserError where a dataset is given in place of a run."""
    from pcam_ssl.data.dataset import is_dataset

    if is_dataset(path):
        raise UserError(
            f"{path}: is a dataset, and a run is needed; `pcam-ssl baseline --data {quote(str(path))}` trains one on it"
        )


def check_free(run: Run) -> None:
    """Raises UserError where a run that has not begun would lie in a folder that holds something else."""
    if run.paths.provenance.exists() or not run.path.is_dir():
        return
    if any(not _left_by_a_kill(entry) for entry in run.path.iterdir()):
        raise UserError(f"{run.path}: holds something that is no run; choose another --out")


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
        changed = differences(run.recipe, recipe, command == ROUNDS) or ["a key that another version of pcam-ssl knows"]
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
def lock_file(path: Path, what: str, wait_s: float = 0.0) -> "Iterator[None]":
    """Hold the lock file `path`; a kill frees it. Raises Held naming the holder while another process or thread has it.

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
        own = (owner.get("pid"), owner.get("host")) == (os.getpid(), platform.node())
        thread = f", this very process, in its thread {owner.get('thread', '?')}" if own else ""
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')} (since {owner.get('since', '?')}{thread})"
        raise Held(f"{what}: {who} is writing it; wait for it or stop it, or choose another --out") from None
    try:
        write_json(
            holder,
            {
                "pid": os.getpid(),
                "thread": threading.current_thread().name,
                "host": platform.node(),
                "since": time.strftime("%H:%M:%S"),
                "argv": sys.argv,
            },
        )
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
