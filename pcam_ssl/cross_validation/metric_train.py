"""`pcam-ssl metric-train`: the baseline's cross-validation with an embedding, kNN, and a final network."""

from pathlib import Path

from pcam_ssl.cross_validation.cross_validate import cross_validate
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run


def metric_train(recipe: Recipe, data: Path | str, out: Path | str, only: list[int] | None = None) -> Run:
    """Train and score the folds of a metric recipe; the run at `out` is continued where it exists."""
    if recipe.method.name != "metric":
        raise UserError(
            f"method.name is {recipe.method.name}: metric-train takes metric recipes; use `pcam-ssl baseline`, or --set method.name=metric"
        )
    return cross_validate(recipe, data, out, "metric-train", only)
