"""`pcam-ssl label-curve`: train the runs that a curve lacks, and write what the scores by budget say."""

import json
import shlex
from pathlib import Path
from typing import Any

from pcam_ssl.cross_validation import cross_validate
from pcam_ssl.cross_validation.checks import warn_of_unused_keys
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import fold_unit, read_folds, refit_unit
from pcam_ssl.distributed import own_rank
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder, write_json, write_text
from pcam_ssl.label_curve.band import curve_values, patches_or_slides, read_run_folds, score_points
from pcam_ssl.label_curve.budgets import ALL, KEYS, Point, check_folder_of_curve, check_unit, parse_budgets, plan_points
from pcam_ssl.label_curve.report import page
from pcam_ssl.label_curve.rounds_gain import ROUNDS, SUPERVISED, add_rounds, rounds_tables, wanted_rounds
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.pseudo_labels.setup import check_recipe, pool_problem
from pcam_ssl.recipe.loading import all_stated, differences, flatten
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.records import read_label_curve, read_rounds
from pcam_ssl.runs.run import ROUNDS_FILE, Run
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
    method: str = SUPERVISED,
    rounds: int | None = None,
    name: str = "RECIPE",
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """The curve of a recipe over budgets of labels or slides, as JSON values; also written into `out`, with a page.

    Runs that are there are not trained again, so the same call goes on after an interrupt, and more budgets continue a curve. A curve of
    the other kind in `out` is kept, and the two are compared. With `method` "rounds" each run is followed by `rounds` pseudo-label rounds
    (1 where none are named), except where a budget leaves no pool. `name` and `settings` are what the user called the recipe by.
    Raises UserError, before anything is trained, for budgets that cannot be drawn, for rounds that cannot be made, and where `out` holds
    something else.
    """
    check_unit(by)
    wanted = wanted_rounds(method, rounds)
    check_folder("--out", out)
    dataset = open_dataset(data)
    points = plan_points(recipe, parse_budgets(budgets), by, seeds, out)
    if wanted is not None:
        for point in points:
            _check_rounds(name, point)
    check_folder_of_curve(out, cross_validate.recipe_of_run(points[0].recipe), dataset.digest)
    counts = _check_points(recipe, dataset, points, by)
    asked = {} if wanted is None else {by: (wanted, _without_pool(dataset, points))}
    if not own_rank():
        new = [point.recipe for point in points if not Run(point.path).paths.provenance.exists()]
        warn_of_unused_keys(*new, rounds=wanted is not None)
    earlier = read_label_curve(out) if (out / FILE).exists() else {"curves": {}, "commands": {}}
    for number, point in enumerate(points, 1):
        _train(point, dataset, f"{number} of {len(points)}")
        if wanted is not None and point.name not in asked[by][1]:
            _make_rounds(point, dataset, wanted, f"{number} of {len(points)}")
    all_points = {by: points}
    for other, curve in earlier["curves"].items():
        if other != by and other in KEYS:
            kept = ",".join(each["name"] for each in curve["points"])
            of_others = plan_points(recipe, parse_budgets(kept), other, len(curve["seeds"]), out)
            if all(Run(point.path).paths.scores.exists() for point in of_others):
                all_points[other] = of_others
                kept_rounds = curve.get("rounds")
                if kept_rounds is not None and _all_made(of_others, kept_rounds["left_out"]):
                    asked[other] = (kept_rounds["wanted"], kept_rounds["left_out"])
    values = _values(recipe, dataset, all_points, asked)
    own = [word for each in settings or [] for word in ("--set", each)]
    more = [] if wanted is None else ["--method", ROUNDS, "--rounds", str(wanted)]
    rest = [*more, "--seeds", str(seeds), "--data", str(data), *own, "--out", str(out)]
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
    command(all_stated(point.recipe), dataset.path, point.path)


def _without_pool(dataset: Dataset, points: list[Point]) -> dict[str, str]:
    """By budget, why its runs can have no rounds. Raises UserError where none can."""
    problems = {point.name: problem for point in reversed(points) if (problem := _pool_problem(point, dataset)) is not None}
    if len(problems) == len({point.name for point in points}):
        budget, (what, move) = next(iter(problems.items()))
        raise UserError(f"--method {ROUNDS}: no budget leaves a pool for rounds; with {budget} {what}{move}")
    for budget, (what, _) in problems.items():
        if not own_rank():
            say(f"{budget}: no rounds, since {what}")
    return {budget: what for budget, (what, _) in problems.items()}


def _check_rounds(name: str, point: Point) -> None:
    """Raises UserError for a recipe that allows no rounds, and where the point has rounds of another recipe."""
    check_recipe(name, point.recipe)
    if point.recipe.pseudo.pooled:
        raise UserError("pseudo.pooled: scores of pooled rounds are withheld, so a curve cannot show them; leave it out")
    begun = Run(point.path / "round-1")
    if begun.paths.scores.exists():
        changed = differences(begun.recipe, cross_validate.recipe_of_run(point.recipe), rounds=True)
        if changed:
            raise UserError(
                f"{begun.path}: made with another recipe ({'; '.join(changed)}); choose another --out, or delete that folder"
            )


def _pool_problem(point: Point, dataset: Dataset) -> tuple[str, str] | None:
    """What a unit of a point has in place of a pool, and what to do; None where all have one."""
    recipe, written = point.recipe, Run(point.path).paths.folds
    folds = read_folds(written, dataset.patches) if written.exists() else cross_validate.checked_folds(recipe, dataset, point.path)
    units = [fold_unit(folds, k) for k in range(folds.n_folds)] + [refit_unit(folds)] * bool(recipe.cv.refit)
    for unit in units:
        if (problem := pool_problem(recipe, dataset, folds, unit)) is not None:
            return f"{unit.name} of seed {point.seed} has {problem[0]}", problem[1]
    return None


def _make_rounds(point: Point, dataset: Dataset, wanted: int, number: str) -> None:
    """Make or continue the rounds of one run, in its folder. The recipe of the curve also holds for those of a run that was there."""
    if _rounds_made(point, wanted):
        return
    if not own_rank():
        say(f"{point.path}: rounds of run {number}")
    keys = {key: value for key, value in flatten(point.recipe.dump()).items() if key.startswith("pseudo.")}
    # The curve itself is the forecast.
    keys["pseudo.headroom"] = False
    pseudo_label(point.path, wanted, settings=[f"{key}={json.dumps(value)}" for key, value in keys.items()], data=dataset.path)


def _rounds_made(point: Point, wanted: int) -> bool:
    """Whether rounds.json compares the `wanted` rounds with the control that the recipe asks for. Rounds that stopped are asked again, since
    the rules that stop them may have changed."""
    if not (point.path / ROUNDS_FILE).exists():
        return False
    verdict = read_rounds(point.path)
    untold = point.recipe.pseudo.control and verdict["control"] is None
    return len(verdict["rounds"]) - 1 == wanted and not untold


def _all_made(points: list[Point], left_out: dict[str, str]) -> bool:
    """Whether the rounds of an earlier curve are still there."""
    return all((point.path / ROUNDS_FILE).exists() for point in points if point.name not in left_out)


def _values(
    recipe: Recipe, dataset: Dataset, points: dict[str, list[Point]], asked: dict[str, tuple[int, dict[str, str]]]
) -> dict[str, Any]:
    """All that is known of the finished points, as JSON values. `asked`: by kind of curve, rounds on each run and why budgets have none."""
    with_rounds = [point for by, (_, left_out) in asked.items() for point in points[by] if point.name not in left_out]
    read, tables = rounds_tables(with_rounds)
    every = [point for each in points.values() for point in each]
    scored = score_points(every, recipe.score.resamples, recipe.seed, tables)
    curves = {by: curve_values(points[by], by, scored) for by in KEYS if by in points}
    curves = {by: add_rounds(curve, *asked[by], read, scored) if by in asked else curve for by, curve in curves.items()}
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
