"""`pcam-ssl label-curve`: train the runs that a curve lacks, and write what the scores by budget say."""

import shlex
from pathlib import Path
from typing import Any

from pcam_ssl.cross_validation import cross_validate
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.distributed import own_rank
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder, write_json, write_text
from pcam_ssl.label_curve.band import curve_values, patches_or_slides, read_run_folds, score_points
from pcam_ssl.label_curve.budgets import ALL, KEYS, Point, check_folder_of_curve, check_unit, parse_budgets, plan_points
from pcam_ssl.label_curve.report import page
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.records import read_label_curve
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say

LABEL_BUDGETS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
"""Suggested for a curve of patches."""
FILE, PAGE_FILE = "label-curve.json", "label-curve.html"


def label_curve(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    budgets: str,
    by: str = "patches",
    seeds: int = 3,
    name: str = "RECIPE",
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """The curve of a recipe over budgets of labels or slides, as JSON values; also written into `out`, with a page.

    Runs that are there are not trained again, so the same call goes on after an interrupt, and more budgets continue a curve. A curve of
    the other kind in `out` is kept, and the two are compared. `name` and `settings` are what the user called the recipe by.
    Raises UserError, before anything is trained, for budgets that cannot be drawn, and where `out` holds something else.
    """
    check_unit(by)
    check_folder("--out", out)
    dataset = open_dataset(data)
    points = plan_points(recipe, parse_budgets(budgets), by, seeds, out)
    check_folder_of_curve(out, cross_validate.recipe_of_run(points[0].recipe), dataset.digest)
    counts = _check_points(recipe, dataset, points, by)
    earlier = read_label_curve(out) if (out / FILE).exists() else {"curves": {}, "commands": {}}
    for number, point in enumerate(points, 1):
        _train(point, dataset, f"{number} of {len(points)}")
    all_points = {by: points}
    for other, curve in earlier["curves"].items():
        if other != by and other in KEYS:
            kept = ",".join(each["name"] for each in curve["points"])
            of_others = plan_points(recipe, parse_budgets(kept), other, len(curve["seeds"]), out)
            if all(Run(point.path).paths.scores.exists() for point in of_others):
                all_points[other] = of_others
    values = _values(recipe, dataset, all_points)
    own = [word for each in settings or [] for word in ("--set", each)]
    rest = ["--seeds", str(seeds), "--data", str(data), *own, "--out", str(out)]
    kept_commands = {unit: earlier["commands"].get(unit) if unit in values["curves"] else None for unit in KEYS}
    values["commands"] = kept_commands | {by: _command(name, budgets, by, rest)}
    values["next_command"] = _next_command(name, values["curves"], counts, rest)
    values["recipe"] = name
    values["out"] = str(out)
    if not own_rank():
        write_json(out / FILE, values)
        write_text(out / PAGE_FILE, page(values))
    return values


def _check_points(recipe: Recipe, dataset: Dataset, points: list[Point], by: str) -> dict[str, int | None]:
    """Labels and slides that can be trained on. Raises UserError, before anything is trained, for a point that cannot be."""
    whole = plan_points(recipe, [None], by, 1, points[0].path.parent)[0]
    folds = cross_validate.checked_folds(whole.recipe, dataset, whole.path)
    learnable = folds.frame[folds.learnable]
    counts = {"patches": len(learnable), "slides": None if folds.grouping == "none" else int(learnable["group"].nunique())}
    most, unit = counts[by], "labels" if by == "patches" else "slides" if folds.grouping == "slides" else "stain clusters"
    if most is None:
        raise UserError("--by slides: cv.scheme random splits slides; use --by patches, or --set cv.scheme=grouped")
    for point in points:
        if point.budget is not None and point.budget > most:
            raise UserError(f"--budgets {point.budget}: there are {most:,} {unit} to train on; ask for at most that many, or {ALL}")
        if Run(point.path).paths.scores.exists():
            continue
        try:
            cross_validate.checked_folds(point.recipe, dataset, point.path)
        except UserError as error:
            reason = error.problems[0]
            if point.budget is not None and "--out" not in reason:
                # The line ends with keys of the recipe, and the curve sets those.
                reason = f"--budgets {point.name}, seed {point.seed}: {reason.partition('; ')[0]}; leave this budget out, or ask for more"
            raise UserError(reason) from None
    return counts


def _train(point: Point, dataset: Dataset, number: str) -> None:
    """Train or continue one run, without a page: `pcam-ssl report` writes one where it is wanted."""
    run = Run(point.path)
    if run.paths.scores.exists() and run.info().get("status") == "done":
        return
    if not own_rank():
        say(f"{point.path}: run {number}")
    command = cross_validate.metric_train if point.recipe.method.name == "metric" else cross_validate.baseline
    command(point.recipe, dataset.path, point.path)


def _values(recipe: Recipe, dataset: Dataset, points: dict[str, list[Point]]) -> dict[str, Any]:
    """All that is known of the finished points, as JSON values."""
    scored = score_points([point for each in points.values() for point in each], recipe.score.resamples, recipe.seed)
    curves = {by: curve_values(points[by], by, scored) for by in KEYS if by in points}
    first = Run(next(iter(points.values()))[0].path)
    folds = read_run_folds(first)
    return {
        "dataset": str(dataset.path),
        "dataset_digest": dataset.digest,
        "scheme": folds.scheme,
        "grouping": folds.grouping,
        "n": len(scored.labels),
        "n_positive": int(scored.labels.sum()),
        "n_slides": scored.slides,
        "n_folds": folds.n_folds,
        "interval": scored.interval,
        "selected_on_fold": bool(first.info()["selected_on_fold"]),
        "curves": curves,
        "patches_or_slides": patches_or_slides(curves, scored),
    }


def _command(name: str, budgets: str, by: str, rest: list[str]) -> str:
    return shlex.join(["pcam-ssl", "label-curve", name, "--budgets", budgets, "--by", by, *rest])


def _next_command(name: str, curves: dict[str, Any], counts: dict[str, int | None], rest: list[str]) -> str | None:
    """The command for the other kind of curve in the same folder; None where it is there, or slides cannot be budgeted."""
    by = next((unit for unit in KEYS if unit not in curves), None)
    if by is None or (most := counts[by]) is None:
        return None
    budgets = [n for n in LABEL_BUDGETS if n < most] if by == "patches" else []
    budgets = budgets or [n for n in dict.fromkeys((most // 3, most // 2, 3 * most // 4)) if n >= 2]
    return _command(name, ",".join([*map(str, budgets), ALL]), by, rest)
