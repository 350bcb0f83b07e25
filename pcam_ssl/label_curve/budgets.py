"""Which runs make a label curve: budgets of labels or slides, one draw a seed, each in a folder of its own."""

from dataclasses import dataclass
from pathlib import Path

from pcam_ssl.errors import UserError, nearest
from pcam_ssl.recipe.loading import differences, load_recipe
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run

ALL = "all"
KEYS = {"patches": "data.label_budget", "slides": "data.slide_budget"}
"""What a budget counts, and the key that sets it."""
POINT_KEYS = ("seed", "cv.seed", *KEYS.values())
"""Keys in which the runs of a curve differ."""
MOST_SEEDS = 100


@dataclass(frozen=True)
class Point:
    """One run of a curve. `budget` is None where all labels are kept."""

    budget: int | None
    seed: int
    recipe: Recipe
    path: Path

    @property
    def name(self) -> str:
        """The budget as the user writes it."""
        return budget_name(self.budget)


def budget_name(budget: int | None) -> str:
    """'100', or 'all'."""
    return ALL if budget is None else str(budget)


def check_unit(by: str) -> None:
    """Raises UserError where `by` is neither patches nor slides."""
    if by not in KEYS:
        raise UserError(f"--by {by}: choose patches or slides.{nearest(by, list(KEYS))}")


def parse_budgets(text: str) -> list[int | None]:
    """The budgets of '100,300,all', rising; None stands for all. Raises UserError for anything but whole numbers from 2 and `all`."""
    budgets: list[int | None] = []
    for word in (word.strip() for word in text.split(",")):
        # Digits of other scripts are digits for str.isdigit, too.
        number = int(word) if word.isascii() and word.isdigit() and len(word) < 12 else None
        if word != ALL and (number is None or number < 2):
            raise UserError(
                f"--budgets {text}: {word or 'nothing'} is no budget; write whole numbers from 2, or {ALL}: 100,300,{ALL}"
            )
        if number in budgets:
            raise UserError(f"--budgets {text}: {word} is named twice; name each budget once")
        budgets.append(number)
    return sorted(budgets, key=lambda budget: (budget is None, budget or 0))


def plan_points(recipe: Recipe, budgets: list[int | None], by: str, seeds: int, out: Path) -> list[Point]:
    """A run for each budget and seed, the seeds from `seed` of the recipe. The seed draws folds and labels, so that all budgets of a seed
    score the same patches in the same folds, and each keeps the labels of the smaller ones.

    Raises UserError for a number of seeds that cannot be, and for a recipe that fixes what the seed draws.
    """
    if not 1 <= seeds <= MOST_SEEDS:
        raise UserError(f"--seeds {seeds}: ask for 1 to {MOST_SEEDS}")
    if recipe.cv.seed is not None:
        raise UserError("cv.seed: a curve draws other labels with each seed; leave it out, and set seed for the first of them")
    return [
        Point(budget, seed, _recipe_of(recipe, budget, by, seed), out / _folder(budget, by, seed))
        for seed in range(recipe.seed, recipe.seed + seeds)
        for budget in budgets
    ]


def _folder(budget: int | None, by: str, seed: int) -> str:
    """All labels are the same run in a curve of patches and in one of slides."""
    return f"{budget}-slides-{seed}" if budget is not None and by == "slides" else f"{budget_name(budget)}-{seed}"


def _recipe_of(recipe: Recipe, budget: int | None, by: str, seed: int) -> Recipe:
    """The recipe of a point. The colour baseline is left out: it takes longer than a point on cached features, and no curve shows it."""
    other = next(key for unit, key in KEYS.items() if unit != by)
    shown = "null" if budget is None else budget
    return load_recipe(
        None, [f"seed={seed}", f"cv.seed={seed}", f"{KEYS[by]}={shown}", f"{other}=null", "score.floor=false"], recipe
    )


def check_folder_of_curve(out: Path, recipe: Recipe, dataset_digest: str) -> None:
    """Raises UserError where `out` is a run itself, or holds runs of another recipe or dataset, with the difference.

    `recipe` is that of a point, as its run states it.
    """
    mend = "choose another --out, or delete that folder"
    if Run(out).paths.provenance.exists():
        raise UserError(f"--out {out}: is a run, and a curve needs a folder for its runs; choose another --out")
    for path in sorted(out.glob("*/run.json")):
        run = Run(path.parent)
        info = run.info()
        if info["dataset_digest"] != dataset_digest:
            raise UserError(
                f"{run.path}: made on dataset {info['dataset']} ({info['dataset_digest'][:12]}), this is {dataset_digest[:12]}; {mend}"
            )
        changed = [line for line in differences(run.recipe, recipe) if line.partition(":")[0] not in POINT_KEYS]
        if changed:
            raise UserError(f"{run.path}: made with another recipe ({'; '.join(changed)}); {mend}")
