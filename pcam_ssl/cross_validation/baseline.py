"""`pcam-ssl baseline`: slide-grouped cross-validation of one backbone."""

from pathlib import Path

from pcam_ssl.cross_validation.cross_validate import cross_validate
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run


def baseline(recipe: Recipe, data: Path | str, out: Path | str, only: list[int] | None = None) -> Run:
    """Train and score the folds of a supervised or consistency recipe; the run at `out` is continued where it exists."""
    if recipe.method.name == "metric":
        raise UserError("method.name is metric: use `pcam-ssl metric-train`, or --set method.name=supervised")
    return cross_validate(recipe, data, out, "baseline", only)
