"""A run folder: where its files lie, and what they hold, read when asked for."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from pcam_ssl.errors import UnknownName, UserError, nearest
from pcam_ssl.files import StrPath, check_target, write_json
from pcam_ssl.recipe.loading import flatten, load_recipe
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.recipe.yaml_text import read_yaml
from pcam_ssl.records import read_info, read_rounds, read_scores
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
DECISIONS, SELECTION = "pseudo.parquet", "selection.json"
TABLES = ("knn", "blend", "graph", "spatial")
"""Further predictions of a run with neighbours, a graph or smoothing in space, named as RUN:knn, RUN:blend, RUN:graph and RUN:spatial."""
COUNTED = ("seed", "score.resamples", "train.batch_size", "train.epochs")
"""Keys of a recipe that reports count with."""


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


def check_no_dataset(path: Path) -> None:
    """Raises UserError where a dataset is given in place of a run."""
    from pcam_ssl.data.dataset import is_dataset

    if is_dataset(path):
        raise UserError(
            f"{path}: is a dataset, and a run is needed; `pcam-ssl baseline --data {quote(str(path))}` trains one on it"
        )
