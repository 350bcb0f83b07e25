"""`pcam-ssl baseline` and `pcam-ssl metric-train`: train the missing folds, and aggregate once all are finished."""

import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from pcam_ssl.cross_validation.aggregate import aggregate_run
from pcam_ssl.cross_validation.checks import (
    check_dataset,
    check_initial_run,
    check_published,
    check_start,
    check_views,
    learned_from_pool,
    published_from,
    selected_on_fold,
    warn_of_unused_keys,
)
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.fold import train_unit
from pcam_ssl.cross_validation.frozen import open_frozen
from pcam_ssl.cross_validation.graph_scores import check_graph
from pcam_ssl.cross_validation.spatial_scores import check_places
from pcam_ssl.cross_validation.training_data import check_batches, check_pools
from pcam_ssl.cross_validation.training_pixels import check_room, for_device
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import Folds, Unit, fold_unit, labelled_rows, read_folds, refit_unit, write_folds
from pcam_ssl.data.splits import make_folds, with_budget, with_inner
from pcam_ssl.device import Precision, choose_precision
from pcam_ssl.distributed import World, join_world
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder
from pcam_ssl.models.foundation import resizing
from pcam_ssl.models.new_network import new_network
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.runs.begin import begin_run, find_run
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say, warn
from pcam_ssl.training.checkpoint import interruptible

GATHER_WAIT_S = 600.0
BEGIN_WAIT_S = 300.0
"""Many folds of a run may begin at once, and each may load published weights and make the folds while it holds the run."""


def cross_validate(recipe: Recipe, data: Path | str, out: Path | str, command: str, only: list[int] | None = None) -> Run:
    """Train the missing folds of the run at `out` (or those in `only`), and aggregate once all are finished.

    The same call continues an interrupted run. Processes under `torchrun` train each fold together; several machines can share a run
    by training different folds.
    """
    world = join_world(recipe.train.device)
    world.run_on_main(lambda: check_folder("--out", out))
    precision = choose_precision(world.device, recipe.train.precision, recipe.train.channels_last)
    recipe = _resolved(recipe, precision, world.device)
    dataset = open_dataset(data)
    world.run_on_main(lambda: check_dataset(recipe, dataset))
    with interruptible(str(out)), ExitStack() as locks:
        run = world.run_on_main(lambda: _begin(recipe, dataset, Path(out), command, only, locks, world, precision))
        folds = read_folds(run.paths.folds, dataset.patches)
        wanted = sorted(set(only)) if only is not None else range(folds.n_folds)
        workers = loader_workers(recipe, world)
        frozen = open_frozen(recipe, dataset, world, precision, workers)
        context = RunContext(recipe, dataset, folds, run, world, precision, workers, frozen=frozen)
        for k in wanted:
            train_missing(context, fold_unit(folds, k))
        if world.run_on_main(lambda: _folds_complete(context)):
            if recipe.cv.refit:
                train_missing(context, refit_unit(folds))
            world.run_on_main(lambda: _aggregate(context, only is not None, locks))
    return run


def checked_folds(recipe: Recipe, dataset: Dataset, out: Path) -> Folds:
    """The folds of a run of this recipe, new or begun at `out`. Nothing is written or trained.

    Raises UserError for folds that cannot be trained, and where `out` holds something else.
    """
    recipe = recipe_of_run(recipe)
    run = find_run(out, recipe, {"path": str(dataset.path), "digest": dataset.digest}, command_of(recipe))
    return planned_folds(recipe, dataset, run)


def command_of(recipe: Recipe) -> str:
    """The command that trains this recipe: `baseline` or `metric-train`."""
    return "metric-train" if recipe.method.name == "metric" else "baseline"


def planned_folds(recipe: Recipe, dataset: Dataset, run: Run) -> Folds:
    """The folds that `run` has, or will have on whatever device it is trained. Raises UserError for folds that cannot be trained."""
    recipe = _resolved_by_method(recipe)
    folds = read_folds(run.paths.folds, dataset.patches) if run.paths.folds.exists() else folds_of(recipe, dataset)
    _check_folds(recipe, dataset, folds, None, run)
    return folds


def recipe_of_run(recipe: Recipe) -> Recipe:
    """The recipe as its run states it: `auto` values replaced by those of this device and of the method."""
    device = join_world(recipe.train.device).device
    return _resolved(recipe, choose_precision(device, recipe.train.precision, recipe.train.channels_last), device)


def train_missing(context: RunContext, unit: Unit) -> None:
    """Train a unit under its lock, unless it is finished."""
    world, run = context.world, context.run
    if world.run_on_main(lambda: run.unit_done(unit.name)):
        return
    with ExitStack() as lock:
        world.run_on_main(lambda: _lock(lock, run.unit(unit.name) / ".lock", f"{unit.name} of {run.path}"))
        # Another process may have finished it since.
        if not world.run_on_main(lambda: run.unit_done(unit.name)):
            train_unit(context, unit)


def _begin(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    command: str,
    only: list[int] | None,
    locks: ExitStack,
    world: World,
    precision: Precision,
) -> Run:
    """Open or continue the run under its lock. With `--fold` the lock is released again, so that other processes can train other folds."""
    identity = (recipe, {"path": str(dataset.path), "digest": dataset.digest}, command)
    # Before the lock too: a folder that is refused must not get a lock file.
    find_run(out, *identity)
    with ExitStack() as opening:
        _lock(locks if only is None else opening, out / ".lock", f"{out}", wait_s=0 if only is None else BEGIN_WAIT_S)
        run = find_run(out, *identity)
        folds = read_folds(run.paths.folds, dataset.patches) if run.paths.folds.exists() else folds_of(recipe, dataset)
        _check_folds(recipe, dataset, folds, only, run)
        check_initial_run(recipe, folds)
        if not run.paths.provenance.exists():
            # Refuse what cannot be trained before anything is written: a run folder fixes the recipe.
            if recipe.optim.name != "lbfgs":
                world.share(recipe.train.batch_size, "train.batch_size")
            warn_of_unused_keys(recipe)
            check_start(recipe, dataset)
            new_network(recipe, dataset.size_px, say)
            check_views(recipe, dataset)
            check_room(recipe, dataset, folds, _all_units(folds, recipe), world, learns_from_pool(recipe.method))
            begin_run(run, *identity)
        elif not all(run.unit_done(unit.name) for unit in _all_units(folds, recipe)):
            check_published(run, recipe)
        if not run.paths.folds.exists():
            write_folds(folds, run.paths.folds, run.table_notes(run.info()))
        device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else world.device.type
        run.update(
            device=device,
            processes=world.size,
            precision=precision.to_dict(),
            threads=torch.get_num_threads(),
            argv=sys.argv,
            selected_on_fold=selected_on_fold(recipe),
            learned_from_pool=learned_from_pool(recipe),
            published_weights=run.info().get("published_weights", published_from(recipe)),
        )
    say(f"{run.path}: {folds.n_folds} folds grouped by {folds.grouping}, on {device} in {precision.name} ({precision.why})")
    if (note := resizing(recipe.model.name, dataset.size_px, recipe.model.image_size)) is not None:
        say(note)
    for note in folds.notes:
        warn(note)
    return run


def _all_units(folds: Folds, recipe: Recipe) -> list[Unit]:
    return [*(fold_unit(folds, k) for k in range(folds.n_folds)), *([refit_unit(folds)] if recipe.cv.refit else [])]


def _lock(locks: ExitStack, path: Path, what: str, wait_s: float = 0) -> None:
    locks.enter_context(lock_file(path, what, wait_s))


def _resolved(recipe: Recipe, precision: Precision, device: torch.device) -> Recipe:
    """The recipe with its `auto` values replaced by those of device and method. They change numbers, so they belong to the run's identity."""
    recipe = for_device(recipe, device)
    train = recipe.train.model_copy(update={"precision": precision.name, "channels_last": precision.channels_last})
    return _resolved_by_method(recipe.model_copy(update={"train": train}))


def _resolved_by_method(recipe: Recipe) -> Recipe:
    metric = recipe.method.name == "metric"
    refit = metric if recipe.cv.refit == "auto" else recipe.cv.refit
    cv = recipe.cv.model_copy(update={"refit": refit, "inner_folds": _inner_folds(recipe)})
    neighbours = recipe.neighbours.model_copy(update={"use": metric}) if recipe.neighbours.use == "auto" else recipe.neighbours
    return recipe.model_copy(update={"cv": cv, "neighbours": neighbours})


INNER_FOLDS = 5


def _inner_folds(recipe: Recipe) -> int:
    """`cv.inner_folds`; where it is auto, further heads must cost next to nothing and no inner slide be needed to watch the training."""
    if recipe.cv.inner_folds != "auto":
        return recipe.cv.inner_folds
    watched = recipe.train.choose != "last" or recipe.schedule.name == "plateau"
    return INNER_FOLDS if recipe.trains_on_features and not watched else 0


def folds_of(recipe: Recipe, dataset: Dataset) -> Folds:
    """The folds of a new run of this recipe."""
    cv = recipe.cv
    if cv.folds_file is not None:
        return _folds_of_file(recipe, read_folds(cv.folds_file, dataset.patches), dataset)
    return make_folds(
        dataset.patches,
        scheme=cv.scheme,
        n_folds=cv.folds,
        inner_share=cv.inner_share,
        label_budget=recipe.data.label_budget,
        slide_budget=recipe.data.slide_budget,
        seed=_fold_seed(recipe),
        inner_folds=_inner_folds(recipe),
    )


def _fold_seed(recipe: Recipe) -> int:
    return recipe.seed if recipe.cv.seed is None else recipe.cv.seed


def _folds_of_file(recipe: Recipe, folds: Folds, dataset: Dataset) -> Folds:
    """The folds of cv.folds_file, with the label budget of the recipe.

    Raises UserError where the recipe states another scheme, number of folds, inner share or budget than the file: reports quote the
    recipe.
    """
    cv, data = recipe.cv, recipe.data
    stated = [("cv.scheme", cv.scheme, folds.scheme)]
    stated += [("cv.folds", cv.folds, folds.n_folds)] if folds.scheme != "official" else []
    same_inner = not _inner_folds(recipe) and not folds.cross_fitted
    stated += [("cv.inner_share", cv.inner_share, folds.inner_share)] if same_inner and folds.inner_share is not None else []
    # Hidden labels stay hidden: the file's inner slides were chosen without them.
    if folds.slide_budget is not None and data.label_budget is None:
        stated.append(("data.slide_budget", data.slide_budget, folds.slide_budget))
    elif folds.label_budget is not None:
        stated.append(("data.label_budget", data.label_budget, folds.label_budget))
    different = [(key, mine, theirs) for key, mine, theirs in stated if mine != theirs]
    if different:
        reasons = "; ".join(
            f"{key} is {theirs} in the file, {'null' if mine is None else mine} in the recipe" for key, mine, theirs in different
        )
        settings = " ".join(f"--set {key}={theirs}" for key, _, theirs in different)
        raise UserError(f"cv.folds_file {cv.folds_file}: made for another recipe ({reasons}); add {settings}, or name another file")
    if data.hides_labels and folds.label_budget is None:
        folds = with_budget(folds, dataset.patches, data.label_budget, _fold_seed(recipe), data.slide_budget)
    if same_inner:
        return folds
    return with_inner(folds, dataset.patches, cv.inner_share, _inner_folds(recipe), _fold_seed(recipe))


def _check_folds(recipe: Recipe, dataset: Dataset, folds: Folds, only: list[int] | None, run: Run) -> None:
    """Raises UserError for folds that cannot be trained, before anything is written."""
    unknown = [k for k in only or [] if not 0 <= k < folds.n_folds]
    if unknown:
        raise UserError(f"--fold {unknown[0]}: {run.path} has folds 0 to {folds.n_folds - 1}")
    if recipe.spatial.use:
        check_places(recipe, dataset)
    labels = labelled_rows(dataset.patches).label.to_numpy(np.int64)
    for unit in (fold_unit(folds, k) for k in range(folds.n_folds)):
        if not unit.inner.any():
            raise UserError(
                f"{unit.name} has no labelled inner patches to choose an epoch and calibrate on; raise data.label_budget or cv.inner_share"
            )
        for each in (unit, *unit.parts):
            if len(np.unique(labels[each.train])) < 2:
                raise UserError(f"{each.name} would train on one class only; set cv.inner_folds=0, change seed, or add slides")
            if recipe.optim.name != "lbfgs":
                check_batches(recipe, labels[each.train])
        k, n = recipe.neighbours.k, int(unit.train.sum())
        if recipe.neighbours.use and k != "inner" and k > n:
            raise UserError(f"neighbours.k is {k}, {unit.name} trains on {n} patches; lower neighbours.k")
        if recipe.graph.use:
            check_graph(recipe, dataset, folds, unit)
    if learns_from_pool(recipe.method):
        check_pools(recipe, dataset, folds)


def loader_workers(recipe: Recipe, world: World) -> int:
    """Data loader processes of each training process: `train.workers`, or a number that fits the device."""
    if recipe.train.workers != "auto":
        return recipe.train.workers
    return world.loader_workers


def _folds_complete(context: RunContext) -> bool:
    missing = [k for k in range(context.folds.n_folds) if not context.run.fold_done(k)]
    if missing:
        names = ", ".join(map(str, missing))
        say(f"{context.run.path}: folds {names} are not trained yet; the process that finishes the last fold aggregates the run")
    return not missing


def _aggregate(context: RunContext, shared: bool, locks: ExitStack) -> None:
    run = context.run
    if shared:
        _lock(locks, run.path / ".lock", f"{run.path}", GATHER_WAIT_S)
    if run.info().get("status") != "done" or not run.paths.scores.exists():
        aggregate_run(context)


def baseline(recipe: Recipe, data: Path | str, out: Path | str, only: list[int] | None = None) -> Run:
    """Train and score the folds of a supervised or consistency recipe; the run at `out` is continued where it exists."""
    if recipe.method.name == "metric":
        raise UserError("method.name is metric: use `pcam-ssl metric-train`, or --set method.name=supervised")
    return cross_validate(recipe, data, out, "baseline", only)


def metric_train(recipe: Recipe, data: Path | str, out: Path | str, only: list[int] | None = None) -> Run:
    """Train and score the folds of a metric recipe; the run at `out` is continued where it exists."""
    if recipe.method.name != "metric":
        raise UserError(
            f"method.name is {recipe.method.name}: metric-train takes metric recipes; use `pcam-ssl baseline`, or --set method.name=metric"
        )
    return cross_validate(recipe, data, out, "metric-train", only)
