"""Predictions of a fold smoothed in space: each logit mixed with the mean of the up to eight patches around it on its slide.

What lies around a patch is what the same table scores, so no label and no training patch enters. A score then depends on which other
patches of its slide are scored: it holds for whole slides, not for patches one at a time.
"""

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.context import RunContext, calibrator_of
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Unit
from pcam_ssl.data.places import cells_of, grid_step, means_around
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.evaluation.metrics import NLL_ROUNDING, nll
from pcam_ssl.neighbors.knn import no_choice
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.slides.space import slide_space
from pcam_ssl.tables import predictions
from pcam_ssl.terminal import say

WEIGHT = 0.5
"""For folds whose inner patches can choose none: what lies around counts as much as the patch itself."""
WEIGHTS = tuple(step / 20 for step in range(21))


def spatial_tables(context: RunContext, unit: Unit, tables: dict[str, pd.DataFrame]) -> dict:
    """Calibrated Predictions smoothed in space, named `inner-spatial` and so on, from those of the unit (`inner`, `oof`, `test`).

    The weight of what lies around is the recipe's, or that of the lowest NLL on inner patches after calibration.
    Returns {"tables", "facts": JSON values}.
    """
    places = cells(context.recipe, context.dataset)
    around = {name: around_logits(places, table) for name, table in tables.items()}
    options, inner = context.recipe.spatial, tables["inner"]
    labels = inner.label.to_numpy(np.int64)
    reason = no_choice(labels) if options.weight == "inner" else None
    asked = WEIGHTS if options.weight == "inner" and reason is None else (WEIGHT if reason else options.weight,)
    best = None
    for weight in asked:
        table = smoothed(inner, around["inner"], weight)
        calibrator = calibrator_of(context, table)
        loss = None if reason else nll(labels, calibrator.prob(table.logit))
        if best is None or loss < best["nll"] - NLL_ROUNDING:
            best = {"weight": weight, "nll": loss, "n": len(labels), "reason": reason, "calibration": calibrator.to_dict()}
    calibrator = Calibrator.from_dict(best["calibration"])
    found = {name: smoothed(table, around[name], best["weight"], calibrator) for name, table in tables.items()}
    scored = np.concatenate([np.isfinite(around[name]) for name in tables if name != "inner"] or [np.zeros(0)])
    facts = {**best, "surrounded": float(scored.mean()) if len(scored) else None}
    if context.world.is_main:
        _say(unit, facts)
    return {"tables": {f"{name}-spatial": table for name, table in found.items()}, "facts": facts}


def _say(unit: Unit, facts: dict) -> None:
    text = f"{unit.name}: smoothed in space with weight {facts['weight']:g}"
    text += f" ({facts['reason']}: the default)" if facts["reason"] else ""
    if facts["surrounded"] is not None:
        text += f"; {facts['surrounded']:.0%} of the scored patches have another beside them"
    say(text)


def smoothed(table: pd.DataFrame, around: np.ndarray, weight: float, calibrator: Calibrator | None = None) -> pd.DataFrame:
    """Predictions whose logits are (1 - weight) x own + weight x `around` `[n]`; unchanged where that is NaN. `view_std` is the patch's own."""
    own = table.logit.to_numpy()
    logits = np.where(np.isfinite(around), (1 - weight) * own + weight * around, own)
    probs = (calibrator or Calibrator()).prob(logits)
    fold = int(table.fold.iloc[0])
    return predictions(table.id, table.label, table.wsi, fold, logits, table.view_std, probs)


def cells(recipe: Recipe, dataset: Dataset) -> pd.DataFrame:
    """Slide number, row and column by id, of the patches of the dataset that have a slide and a place.

    The distance of neighbours is the recipe's, that of `data tile`, or the smallest one between two patches of any slide.
    """
    placed = dataset.patches.set_index("id")[["wsi", "x", "y"]].dropna()
    if recipe.spatial.step_px is not None:
        return cells_of(placed, recipe.spatial.step_px)
    smallest = min(grid_step(placed, axis) for axis in ("x", "y"))
    steps = {wsi: slide_space(dataset, wsi, None).step_px or smallest for wsi in placed.wsi.unique()}
    return cells_of(placed, placed.wsi.map(steps).astype("float64"))


def around_logits(places: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
    """Mean logit `[n]` of the patches of `table` around each of its patches, by the `cells` of their dataset; NaN where there is none."""
    known = table.id.isin(places.index).to_numpy()
    around = np.full(len(table), np.nan)
    if known.any():
        around[known] = means_around(places.loc[table.id[known]], table.logit.to_numpy()[known])
    return around


def check_places(recipe: Recipe, dataset: Dataset) -> pd.DataFrame:
    """The `cells` of a dataset. Raises UserError where no patch of it has another beside it."""
    if dataset.patches[["wsi", "x", "y"]].isna().any(axis=1).all():
        raise UserError(
            f"spatial.use: {dataset.path} has no slides with coordinates; import it with --wsi-pattern, or leave spatial.use=false"
        )
    places = cells(recipe, dataset)
    if np.isnan(means_around(places, np.zeros(len(places)))).all():
        raise UserError(
            f"spatial.use: no patch of {dataset.path} has another beside it; set spatial.step_px to the distance of neighbouring patches in"
            " its coordinates, or leave spatial.use=false"
        )
    return places
