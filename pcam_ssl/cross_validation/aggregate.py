"""Aggregate finished folds: oof.parquet, test.parquet, submission.csv, scores.json."""

import time

import numpy as np
import pandas as pd
from scipy.special import logit as inverse_sigmoid

from pcam_ssl import records
from pcam_ssl.cross_validation.checks import submission_problem
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.fold import PLAIN_TABLE
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, labelled_rows, score_groups
from pcam_ssl.data.pool import transductive
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import intervals_and_differences, paired_differences
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.evaluation.colour_baseline import colour_baseline_oof
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import atomic_write, write_json
from pcam_ssl.neighbors.retrieval import COLUMNS as RETRIEVAL
from pcam_ssl.neighbors.retrieval import summarise
from pcam_ssl.records import read_fold
from pcam_ssl.runs.networks import INNER, INNER_GRAPH, INNER_KNN, INNER_SPATIAL, fit_mean_calibrator, mean_of_folds
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import check_predictions, predictions, read_predictions, read_table, write_table
from pcam_ssl.terminal import say


def aggregate_run(context: RunContext, floor: pd.DataFrame | None = None, withheld: str | None = None) -> None:
    """Write the tables and scores of a run whose folds are all finished.

    `floor`: Predictions of the colour baseline under the same folds, where they exist already. `withheld`: why out-of-fold scores are
    withheld; then neither these scores nor oof.parquet are written.
    """
    run, dataset, folds, recipe = context.run, context.dataset, context.folds, context.recipe
    info = run.info()
    oof = aggregate_oof(run, folds) if withheld is None else None
    notes = run.table_notes(info, round=context.round, views=context.test_views.count)
    if oof is not None:
        write_table(run.path / "oof.parquet", oof, notes)
    # Fit again: a fold may have been retrained since the run was last aggregated.
    calibrators = {name: fit_mean_calibrator(run, range(folds.n_folds), name) for name in _inner_tables(run)}
    tables = {name: calibrator.to_dict() for name, calibrator in calibrators.items()}
    run.update(mean_calibration={"folds": list(range(folds.n_folds)), "tables": tables})
    test = aggregate_test(run, folds, calibrator=calibrators[INNER]) if (dataset.patches.split == "test").any() else None
    if test is not None:
        write_table(run.path / "test.parquet", test, notes)
        if submission_problem(dataset) is None:
            write_submission(run, dataset, test)
    if oof is not None:
        say(f"{run.path}: scoring {len(oof)} out-of-fold predictions")
        if floor is None and recipe.score.floor:
            floor = colour_baseline_table(run, dataset, folds, recipe.seed, notes)
    scores = score_run(context, oof, test, floor, info)
    if withheld is not None:
        scores["withheld"] = withheld
    if oof is not None and recipe.neighbours.use:
        kinds = {"knn": calibrators.get(INNER_KNN), "blend": None} if recipe.scored_by == "head" else {}
        scores["neighbours"] = {**aggregate_kinds(context, oof, notes, kinds), "retrieval": aggregate_retrieval(context)}
    if oof is not None and recipe.graph.use:
        by_graph = aggregate_kinds(context, oof, notes, {"graph": calibrators[INNER_GRAPH]})["graph"]
        scores["graph"] = {**by_graph, "transductive": recipe.graph.transductive}
    if oof is not None and recipe.spatial.use:
        scores.update(aggregate_kinds(context, oof, notes, {"spatial": calibrators[INNER_SPATIAL]}))
    if oof is not None:
        scores["views"] = score_views(context, oof)
    write_json(run.paths.scores, scores)
    run.update(cost=training_cost(context), status="done", ended=time.strftime("%Y-%m-%dT%H:%M:%S%z"))


def training_cost(context: RunContext) -> dict:
    """`patch_passes` of the training, summed over folds (None where unknown, or not counted because features are `cached`)."""
    passes = [read_fold(context.run.fold(k)).get("patch_passes") for k in range(context.folds.n_folds)]
    return {"patch_passes": None if None in passes else sum(passes), "cached": context.trains_on_cached}


def _inner_tables(run: Run) -> list[str]:
    return [name for name in (INNER, INNER_KNN, INNER_GRAPH, INNER_SPATIAL) if (run.fold(0) / f"{name}.parquet").exists()]


def aggregate_kinds(
    context: RunContext, head: pd.DataFrame, notes: dict[str, str], kinds: dict[str, Calibrator | None]
) -> dict[str, dict]:
    """Write `oof-KIND` and `test-KIND` for each of `kinds` (`knn`, `blend`, `graph`, `spatial`); return their scores and their paired gain over
    the run's own predictions `head`. `kinds` names the calibrator of the mean over folds, None where logits are calibrated already."""
    run, folds, score = context.run, context.folds, context.recipe.score
    options = {"resamples": score.resamples, "seed": context.recipe.seed}
    clusters, unit = score_groups(folds, head)
    scores = {}
    for kind, calibrator in kinds.items():
        oof = aggregate_oof(run, folds, f"oof-{kind}")
        write_table(run.path / f"oof-{kind}.parquet", oof, notes)
        if (run.fold(0) / f"test-{kind}.parquet").exists():
            write_table(run.path / f"test-{kind}.parquet", aggregate_test(run, folds, f"test-{kind}", calibrator), notes)
        gain = paired_differences(head.label.to_numpy(np.int64), head.prob, oof.prob, clusters, **options)
        scores[kind] = {"out_of_fold": score_report(oof, clusters, unit=unit, **options), "above_head": gain}
    return scores


def aggregate_retrieval(context: RunContext) -> dict:
    """Mean retrieval measures over all scored patches, each in its fold's embedding, with intervals."""
    folders = [context.run.fold(k) for k in range(context.folds.n_folds)]
    per_query = pd.concat([read_table(folder / "retrieval.parquet", RETRIEVAL)[0] for folder in folders], ignore_index=True)
    options = {"resamples": context.recipe.score.resamples, "seed": context.recipe.seed}
    return {"queried": len(per_query), **summarise(per_query, **options)}


def score_views(context: RunContext, oof: pd.DataFrame) -> dict | None:
    """Scores of one plain view, and the paired gain of averaging all test-time views; None where only one view was scored."""
    run, folds = context.run, context.folds
    if not all((run.fold(k) / f"{PLAIN_TABLE}.parquet").exists() for k in range(folds.n_folds)):
        return None
    plain = aggregate_oof(run, folds, PLAIN_TABLE)
    options = {"resamples": context.recipe.score.resamples, "seed": context.recipe.seed}
    probs = [plain.prob, oof.prob]
    (one, _), (_, gain) = intervals_and_differences(oof.label.to_numpy(np.int64), probs, score_groups(folds, oof)[0], **options)
    return {"count": context.test_views.count, "one_view": one, "gain": gain}


def aggregate_oof(run: Run, folds: Folds, name: str = "oof") -> pd.DataFrame:
    """Out-of-fold Predictions, one row per scored id, in dataset order.

    Raises UserError where the folds do not score exactly the patches that folds.parquet names.
    """
    parts = [read_predictions(run.fold(k) / f"{name}.parquet") for k in range(folds.n_folds)]
    expected = folds.frame.id[folds.frame.fold >= 0]
    oof = check_predictions(pd.concat(parts, ignore_index=True), f"{run.path}/fold-*/{name}.parquet")
    if sorted(oof.id) != sorted(expected):
        raise UserError(
            f"{run.path}: the folds score {len(oof)} patches, folds.parquet names {len(expected)}; delete the run and train again"
        )
    return oof.set_index("id").loc[expected].reset_index()


def aggregate_test(run: Run, folds: Folds, name: str = "test", calibrator: Calibrator | None = None) -> pd.DataFrame:
    """Predictions of every fold, then their mean as fold -1 (`mean_of_folds`)."""
    parts = [read_predictions(run.fold(k) / f"{name}.parquet") for k in range(folds.n_folds)]
    return pd.concat([*parts, mean_of_folds(parts, calibrator)], ignore_index=True)


def write_submission(run: Run, dataset: Dataset, test: pd.DataFrame) -> None:
    """Write `id,label` with calibrated probs of class 1, in the order of sample_submission.csv where there is one."""
    mean = test[test.fold == -1].set_index("id").prob
    order = dataset.sample_submission or list(mean.index)
    with atomic_write(run.path / "submission.csv") as temporary:
        mean.loc[order].rename("label").to_csv(temporary)


def colour_baseline_table(run: Run, dataset: Dataset, folds: Folds, seed: int, notes: dict[str, str]) -> pd.DataFrame:
    """Write and return Predictions of boosted trees on colour histograms under the same folds; their training excludes inner slides too."""
    rows = labelled_rows(dataset.patches)
    masks = [[mask(k) for k in range(folds.n_folds)] for mask in (folds.train_mask, folds.score_mask)]
    probs = colour_baseline_oof(dataset.pixels, rows.row.to_numpy(), rows.label.to_numpy(np.int64), *masks, seed)
    scored = np.isfinite(probs)
    logits = inverse_sigmoid(probs[scored].clip(1e-15, 1 - 1e-15))
    table = predictions(rows.id[scored], rows.label[scored], rows.wsi[scored], 0, logits, probs=probs[scored])
    table["fold"] = folds.frame.fold[scored].array
    write_table(run.path / "floor.parquet", table, notes)
    return table


def score_run(
    context: RunContext, oof: pd.DataFrame | None, test: pd.DataFrame | None, floor: pd.DataFrame | None, info: dict
) -> dict:
    """The content of scores.json. Out-of-fold and held-out scores are apart; held-out scores say whether networks learned from those patches."""
    recipe, folds = context.recipe, context.folds
    options = {"resamples": recipe.score.resamples, "seed": recipe.seed}
    marks = {
        "scheme": recipe.cv.scheme,
        "grouping": folds.grouping,
        "slides_shared_across_folds": folds.grouping == "none",
        "selected_on_fold": info["selected_on_fold"],
        "scored_by": recipe.scored_by,
        "notes": list(folds.notes),
        "recipe_digest": info["recipe_digest"],
        "dataset_digest": info["dataset_digest"],
    }
    scores = {**marks, "out_of_fold": None, "floor": None, "above_floor": None, "held_out": None}
    if oof is not None:
        clusters, unit = score_groups(folds, oof)
        scores["out_of_fold"] = score_report(oof, clusters, unit=unit, **options)
    if oof is not None and floor is not None:
        scores["floor"] = score_report(floor, clusters, unit=unit, **options)
        scores["above_floor"] = paired_differences(oof.label.to_numpy(np.int64), floor.prob, oof.prob, clusters, **options)
    if test is not None and test.label.notna().any():
        mean = test[test.fold == -1]
        report = score_report(mean, mean.wsi if mean.wsi.notna().all() else None, **options)
        transduction = transductive(context.dataset, folds, mean.id[mean.label.notna()], info["learned_from_pool"])
        scores["held_out"] = {"test": {**report, **transduction}}
    return scores


def read_scores(run: Run) -> dict:
    """The values of scores.json of a finished run. Raises UserError where the run is not finished or the file is damaged."""
    return records.read_scores(run.path)
