"""The cheap part of an audit, done before any training: what would make a score a lie or a run useless."""

from pathlib import Path

import numpy as np

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.duplicates import conflicting_duplicates, duplicate_keys
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.data.views import check_transform
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import FOLD_COLUMNS, read_table
from pcam_ssl.terminal import warn

TRIED_PATCHES = 16


def check_dataset(recipe: Recipe, dataset: Dataset) -> None:
    """Refuse exact duplicates with conflicting labels (unless told); say what else the user should know."""
    conflicting = conflicting_duplicates(labelled_rows(dataset.patches), duplicate_keys(dataset))
    if len(conflicting) and not recipe.data.allow_conflicts:
        raise UserError(
            f"{dataset.path}: {len(conflicting)} labelled patches are exact duplicates of another with the other label, first {conflicting.id.iloc[0]};"
            " `pcam-ssl data audit` names them: mend the labels and import again, or set data.allow_conflicts=true"
        )
    if not (dataset.patches.split == "test").any():
        warn(f"{dataset.path}: there is no test split, so no test.parquet and no submission.csv will be written")
    if (problem := submission_problem(dataset)) is not None:
        warn(f"{dataset.path}: {problem}; no submission.csv will be written")


def check_views(recipe: Recipe, dataset: Dataset) -> None:
    """Raises UserError where a user's own policy of views cannot be drawn from some patches of the dataset."""
    if recipe.views.transform is not None:
        rows = np.linspace(0, len(dataset.patches) - 1, TRIED_PATCHES).astype(int)
        check_transform(recipe.views.transform, dataset.pixels[rows])


def submission_problem(dataset: Dataset) -> str | None:
    """Why the test split cannot fill the sample submission, or None where it can or there is none."""
    sample = dataset.sample_submission
    if sample is None:
        return None
    test = set(dataset.patches.id[dataset.patches.split == "test"])
    absent, more = [name for name in sample if name not in test], test - set(sample)
    if absent or more:
        return f"{len(absent)} ids of sample_submission.csv are not in the test split, {len(more)} of the test split are not in it, first {(absent or sorted(more))[0]}"
    return None


def selected_on_fold(recipe: Recipe) -> bool:
    """Whether the scored labels chose an epoch of this run, or of a run that its weights come from."""
    if recipe.train.choose == "fold":
        return True
    return recipe.model.init is not None and Run(Path(recipe.model.init)).info()["selected_on_fold"]


def learned_from_pool(recipe: Recipe) -> bool:
    """Whether networks of this recipe learn from their pools of unlabelled patches, or start from weights that have."""
    if learns_from_pool(recipe.method):
        return True
    return recipe.model.init is not None and Run(Path(recipe.model.init)).info().get("learned_from_pool", False)


def check_initial_run(recipe: Recipe, folds: Folds) -> None:
    """`model.init`: fold K may start only from weights that never saw fold K's slides, so the folds must be the same.

    Nor from weights that learned labels which `data.label_budget` hides: the run would have had more labels than it says.
    """
    if recipe.model.init is None:
        return
    run = Run(Path(recipe.model.init))
    run.info()
    theirs, _ = read_table(run.paths.folds, FOLD_COLUMNS)
    columns = ["id", "group", "fold", *(f"inner_{k}" for k in range(folds.n_folds))]
    mine = folds.frame
    if (
        any(name not in theirs for name in [*columns, "visible"])
        or len(theirs) != len(mine)
        or not (theirs[columns].astype(str) == mine[columns].astype(str)).all(axis=None)
    ):
        raise UserError(
            f"model.init: {run.path} has other folds, so its weights may have seen slides this run scores; set cv.folds_file={run.paths.folds}"
        )
    hidden = int((theirs.visible.to_numpy(dtype=bool) & ~mine.visible.to_numpy()).sum())
    if hidden:
        raise UserError(
            f"model.init: {run.path} learned from {hidden} labels that data.label_budget={recipe.data.label_budget} hides here;"
            " name a run of that budget, or raise data.label_budget"
        )
    missing = [k for k in range(folds.n_folds) if not run.fold_done(k)]
    if missing:
        raise UserError(f"model.init: {run.path} has not finished fold {missing[0]}; run its command to the end first")
