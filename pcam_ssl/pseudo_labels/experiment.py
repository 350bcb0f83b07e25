"""A pseudo-label experiment: round 0 is a finished run, later rounds are runs in `OUT/round-R`."""

from dataclasses import dataclass, replace
from pathlib import Path

from pcam_ssl.blending.members import Member
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.frozen import Frozen
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, refit_unit
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import ROUNDS_FILE, Run

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
