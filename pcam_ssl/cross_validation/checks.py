"""Quick checks before any training: refuse what would make scores wrong or a run useless."""

from pathlib import Path

import numpy as np

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.duplicates import conflicting_duplicates, duplicate_keys
from pcam_ssl.data.folds import Folds, labelled_rows
from pcam_ssl.data.views import check_transform
from pcam_ssl.errors import UserError
from pcam_ssl.models.artefact import FORMAT, WEIGHTS
from pcam_ssl.models.backbone import package_for
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.recipe.unused_keys import unused_keys
from pcam_ssl.records import read_model
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import FOLD_COLUMNS, read_table
from pcam_ssl.terminal import warn

TRIED_PATCHES = 16


def check_dataset(recipe: Recipe, dataset: Dataset) -> None:
    """Raises UserError for exact duplicates with conflicting labels, unless data.allow_conflicts is true.

    Warns where there is no test split, or where it does not match the sample submission.
    """
    conflicting = conflicting_duplicates(labelled_rows(dataset.patches), duplicate_keys(dataset))
    if len(conflicting) and not recipe.data.allow_conflicts:
        raise UserError(
            f"{dataset.path}: {len(conflicting)} labelled patches are exact duplicates of a patch with the other label, first {conflicting.id.iloc[0]};"
            " `pcam-ssl data audit` lists them; correct the labels and import again, or set data.allow_conflicts=true"
        )
    if not (dataset.patches.split == "test").any():
        warn(f"{dataset.path}: there is no test split, so no test.parquet and no submission.csv will be written")
    if (problem := submission_problem(dataset)) is not None:
        warn(f"{dataset.path}: {problem}; no submission.csv will be written")


def check_views(recipe: Recipe, dataset: Dataset) -> None:
    """Raises UserError where the user's own augmentation (`views.transform`) fails on patches of the dataset."""
    if recipe.views.transform is not None:
        rows = np.linspace(0, len(dataset.patches) - 1, TRIED_PATCHES).astype(int)
        check_transform(recipe.views.transform, dataset.pixels[rows])


def submission_problem(dataset: Dataset) -> str | None:
    """Why the test split does not match the sample submission; None where it does, or where there is none."""
    sample = dataset.sample_submission
    if sample is None:
        return None
    test = set(dataset.patches.id[dataset.patches.split == "test"])
    missing, extra = [name for name in sample if name not in test], test - set(sample)
    if missing or extra:
        first = (missing or sorted(extra))[0]
        return f"{len(missing)} ids of sample_submission.csv are not in the test split, {len(extra)} test ids are not in sample_submission.csv, first {first}"
    return None


def selected_on_fold(recipe: Recipe) -> bool:
    """Whether the scored labels chose an epoch of this run, or of the run its weights come from (`model.init`)."""
    if recipe.train.choose == "fold":
        return True
    return recipe.model.init is not None and Run(Path(recipe.model.init)).info()["selected_on_fold"]


def learned_from_pool(recipe: Recipe) -> bool:
    """Whether networks of this recipe learn from unlabelled patches, or start from weights that did."""
    if learns_from_pool(recipe.method):
        return True
    return recipe.model.init is not None and Run(Path(recipe.model.init)).info().get("learned_from_pool", False)


def published_from(recipe: Recipe) -> str | None:
    """Where published weights come from on this machine: a package, a folder, or else the hub or its cache. None where a recipe takes none."""
    if not recipe.starts_from_published:
        return None
    if recipe.model.name.startswith("local-dir:"):
        return recipe.model.name
    package = package_for(recipe.model.name)
    return "hub" if package is None else f"{package.title} (SHA-256 {package.sha256[:12]})"


def check_published(run: Run, recipe: Recipe) -> None:
    """Raises UserError where published weights come from elsewhere than those that `run` began with, which may differ from them."""
    here, began = published_from(recipe), run.info().get("published_weights")
    if began is not None and here != began:
        raise UserError(
            f"{run.path}: begun with weights of {recipe.model.name} from {began}, here they would come from {here};"
            " make the same weights available (docs/weights.md), or choose another --out"
        )


def check_start(recipe: Recipe, dataset: Dataset) -> None:
    """Raises UserError where `model.weights` is a network of a run on this dataset; warns where it may have seen its slides in another way.

    Warns, too, where a backbone of random weights is frozen.
    """
    model = recipe.model
    if model.freeze_backbone and not model.pretrained and model.init is None and model.weights is None:
        warn(
            "model.freeze_backbone: the backbone keeps RANDOM weights, and the head learns from their features;"
            " set model.pretrained=true, model.weights or model.init"
        )
    if model.weights is None or Path(model.weights).name != WEIGHTS:
        return
    unit = Path(model.weights).parent
    try:
        trained_on = read_model(unit, FORMAT).get("dataset_digest")
    except UserError:  # no unit of a run: others name their files so, too
        return
    run = unit.parent
    if trained_on == dataset.digest:
        raise UserError(
            f"model.weights: {model.weights} learned from labels of this dataset, perhaps of slides that this run scores;"
            f" set model.init={run} and cv.folds_file={run / 'folds.parquet'}, which keep folds apart"
        )
    warn(
        f"model.weights: {model.weights} learned from labels of another dataset; scores are too high if it shares slides with this one"
    )


def warn_of_unused_keys(*recipes: Recipe, rounds: bool = False) -> None:
    """Warn of keys that the user set and that have no effect, in pseudo-label `rounds` or in runs without them; once for several recipes."""
    for line in dict.fromkeys(line for recipe in recipes for line in unused_keys(recipe, rounds)):
        warn(line)


def check_initial_run(recipe: Recipe, folds: Folds) -> None:
    """Raises UserError where the weights of `model.init` would leak labels.

    Fold K may start only from weights that never saw its scored slides, so both runs need the same folds. The initial run must not
    have learned labels that a budget hides: this run would have used more labels than it reports.
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
            f"model.init: {run.path} has other folds, so its weights may have seen slides that this run scores; set cv.folds_file={run.paths.folds}"
        )
    hidden = int((theirs.visible.to_numpy(dtype=bool) & ~mine.visible.to_numpy()).sum())
    if hidden:
        key = "label_budget" if recipe.data.slide_budget is None else "slide_budget"
        raise UserError(
            f"model.init: {run.path} learned from {hidden} labels that data.{key}={getattr(recipe.data, key)} hides here;"
            f" choose a run with that budget, or raise data.{key}"
        )
    missing = [k for k in range(folds.n_folds) if not run.fold_done(k)]
    if missing:
        raise UserError(f"model.init: {run.path} has not finished fold {missing[0]}; run its command again until it is done")
