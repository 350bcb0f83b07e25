"""`pcam-ssl baseline`: slide-grouped cross-validation of one backbone."""

from pathlib import Path

from pcam_ssl.data.store import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.recipe import Recipe
from pcam_ssl.recipe_methods import CONSISTENCY
from pcam_ssl.run import Run
from pcam_ssl.workflows.cross_validation import _folds, cross_validate
from pcam_ssl.workflows.pool import check_pools
from pcam_ssl.world import join_world


def baseline(recipe: Recipe, data: Path | str, out: Path | str, only: list[int] | None = None) -> Run:
    """Train and score the folds of a supervised or consistency recipe; the run at `out` is continued where it exists."""
    if recipe.method.name == "metric":
        raise UserError("method.name is metric: use `pcam-ssl metric-train`, or --set method.name=supervised")
    if isinstance(recipe.method, CONSISTENCY) and not Run(Path(out)).folds.exists():
        join_world(recipe.train.device).lead(lambda: _check_pools(recipe, data))
    return cross_validate(recipe, data, out, "baseline", only)


def _check_pools(recipe: Recipe, data: Path | str) -> None:
    """Refuse an empty pool before a run folder is begun."""
    dataset = open_dataset(data)
    check_pools(recipe, dataset, _folds(recipe, dataset))
