"""A pseudo-label experiment: round 0 is a finished run, later rounds are runs in `OUT/round-R`, their control is one in `OUT/control`."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pcam_ssl.blending.members import Member
from pcam_ssl.cross_validation.checks import selected_on_fold
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.frozen import Frozen
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, refit_unit, write_folds
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.begin import begin_run, find_run
from pcam_ssl.runs.run import CONTROL, ROUNDS_FILE, Run
from pcam_ssl.tables import read_predictions

WITHHELD = (
    "pseudo.pooled: every fold learnt from pseudo-labels that networks of all folds made, and those saw its labels; "
    "an out-of-fold score would flatter, so none is given"
)


@dataclass(frozen=True)
class Rounds:
    """One pseudo-label experiment: `start` is round 0, `out` holds the later rounds, `recipe` is that of the students."""

    recipe: Recipe
    dataset: Dataset
    folds: Folds
    start: Run
    out: Path
    world: World
    precision: Precision
    workers: int
    members: tuple[Member, ...] = ()
    """Member runs of round 0 where it is a blend, which has no networks of its own."""
    frozen: Frozen | None = None
    """The frozen backbone of the students."""
    frozen_0: Frozen | None = None
    """That of round 0."""

    def run(self, number: int) -> Run:
        """The run of a round."""
        return self.start if number == 0 else Run(self.out / f"round-{number}")

    @property
    def control(self) -> Run:
        """The run of the control, begun or not."""
        return Run(self.out / CONTROL)

    @property
    def verdict(self) -> Path:
        """Path of rounds.json."""
        return self.out / ROUNDS_FILE

    def context(self, number: int) -> RunContext:
        """The context of a round."""
        context = self.context_of(self.run(number), number)
        return context if number else replace(context, frozen=self.frozen_0)

    def context_of(self, run: Run, number: int = 0) -> RunContext:
        """The context of units in the folder of `run`."""
        return RunContext(self.recipe, self.dataset, self.folds, run, self.world, self.precision, self.workers, number, self.frozen)

    @property
    def units(self) -> list[Unit]:
        """The units of a round, without pseudo-labels: the folds, and the refit where round 0 has one."""
        units = [fold_unit(self.folds, k) for k in range(self.folds.n_folds)]
        return units + [refit_unit(self.folds)] * bool(self.recipe.cv.refit)

    @property
    def identity(self) -> tuple[Recipe, dict[str, str], str]:
        """Recipe, dataset and command, as `find_run` and `begin_run` take them."""
        return self.recipe, {"path": str(self.dataset.path), "digest": self.dataset.digest}, "pseudo-label"

    def colour_baseline(self) -> pd.DataFrame | None:
        """Predictions of the colour baseline under the same folds, where round 0 has them and the recipe asks for them."""
        path = self.start.path / "floor.parquet"
        return read_predictions(path) if self.recipe.score.floor and path.exists() else None

    def begin(self, run: Run, **facts: Any) -> bool:
        """Begin a run of the experiment, or open it again; `facts` go into run.json. Returns whether it is still to be trained.

        Raises UserError where the folder holds another run, or one made on another round 0.
        """
        run = find_run(run.path, *self.identity)
        if not run.paths.provenance.exists():
            begin_run(run, *self.identity)
        info, start = run.info(), self.start.info()
        if not run.paths.folds.exists():
            write_folds(self.folds, run.paths.folds, run.table_notes(info))
        digest = start["recipe_digest"]
        if info.get("round_0_digest", digest) != digest:
            raise UserError(f"{run.path}: made on another round 0 ({info['round_0']}); choose another --out, or delete that folder")
        if info.get("status") == "done":
            return False
        run.update(
            round_0=str(self.start.path.resolve()),
            round_0_digest=digest,
            device=str(self.world.device),
            processes=self.world.size,
            precision=self.precision.to_dict(),
            argv=sys.argv,
            selected_on_fold=selected_on_fold(self.recipe) or start["selected_on_fold"],
            **facts,
        )
        return True
