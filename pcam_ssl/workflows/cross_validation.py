"""Folds as units of work: what is missing is trained, and what is complete is gathered."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from pcam_ssl.data.folds import Folds, read_folds, write_folds
from pcam_ssl.data.splits import make_folds
from pcam_ssl.data.store import Dataset, open_dataset
from pcam_ssl.engine.precision import Precision, choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.recipe import Recipe
from pcam_ssl.run import Run, hold, open_run
from pcam_ssl.terminal import say, warn
from pcam_ssl.workflows.checks import check_dataset, check_initial_run
from pcam_ssl.workflows.fold import Setting, train_fold
from pcam_ssl.workflows.gather import gather_run
from pcam_ssl.world import World, join_world

GATHER_WAIT_S = 600.0


def cross_validate(recipe: Recipe, data: Path | str, out: Path | str, command: str, only: list[int] | None = None) -> Run:
    """Train the missing folds of the run at `out` (or those in `only`), and gather once all are there.

    The same call continues a run that was stopped. Several processes under `torchrun` work on each fold together;
    several machines may share a run by asking for different folds.
    """
    world = join_world(recipe.train.device)
    precision = choose_precision(world.device, recipe.train.precision, recipe.train.channels_last)
    recipe = _resolved(recipe, precision)
    dataset = open_dataset(data)
    world.lead(lambda: check_dataset(recipe, dataset))
    with ExitStack() as locks:
        run = world.lead(lambda: _begin(recipe, dataset, Path(out), command, only, locks, world, precision))
        folds = read_folds(run.folds, dataset.patches)
        wanted = sorted(set(only)) if only is not None else range(folds.n_folds)
        setting = Setting(recipe, dataset, folds, run, world, precision, _workers(recipe, world))
        for k in wanted:
            if not world.lead(lambda k=k: run.fold_done(k)):
                with ExitStack() as fold_lock:
                    world.lead(lambda k=k, lock=fold_lock: _hold(lock, run.fold(k) / ".lock", f"fold {k} of {run.path}"))
                    # Another process may have finished it since.
                    if not world.lead(lambda k=k: run.fold_done(k)):
                        train_fold(setting, k)
        world.lead(lambda: _gather_when_complete(setting, only is not None, locks))
    return run


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
    """Open or continue the run under its lock; a `--fold` process lets the lock go, so that others may take other folds."""
    with ExitStack() as opening:
        _hold(locks if only is None else opening, out / ".lock", f"{out}", wait_s=0 if only is None else 30)
        run = open_run(out, recipe, {"path": str(dataset.path), "digest": dataset.digest}, command)
        if not run.folds.exists():
            write_folds(_folds(recipe, dataset), run.folds, run.table_notes(run.info()))
        folds = read_folds(run.folds, dataset.patches)
        _check_folds(folds, only, run)
        check_initial_run(recipe, folds)
        device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else world.device.type
        run.update(
            device=device, processes=world.size, precision=precision.to_dict(), threads=torch.get_num_threads(), argv=sys.argv
        )
    say(f"{run.path}: {folds.n_folds} folds grouped by {folds.grouping}, on {device} in {precision.name} ({precision.why})")
    for note in folds.notes:
        warn(note)
    return run


def _hold(locks: ExitStack, path: Path, what: str, wait_s: float = 0) -> None:
    locks.enter_context(hold(path, what, wait_s))


def _resolved(recipe: Recipe, precision: Precision) -> Recipe:
    """The recipe with what was left to the device filled in: it decides numbers, so it belongs to the run's identity."""
    train = recipe.train.model_copy(update={"precision": precision.name, "channels_last": precision.channels_last})
    return recipe.model_copy(update={"train": train})


def _folds(recipe: Recipe, dataset: Dataset) -> Folds:
    cv = recipe.cv
    if cv.folds_file is not None:
        return read_folds(cv.folds_file, dataset.patches)
    return make_folds(
        dataset.patches,
        scheme=cv.scheme,
        n_folds=cv.folds,
        inner_share=cv.inner_share,
        label_budget=recipe.data.label_budget,
        seed=recipe.seed,
    )


def _check_folds(folds: Folds, only: list[int] | None, run: Run) -> None:
    unknown = [k for k in only or [] if not 0 <= k < folds.n_folds]
    if unknown:
        raise UserError(f"--fold {unknown[0]}: {run.path} has folds 0 to {folds.n_folds - 1}")
    for k in range(folds.n_folds):
        if not folds.inner_mask(k).any():
            raise UserError(
                f"fold {k} has no labelled inner patches to choose and calibrate by; raise data.label_budget or cv.inner_share"
            )


def _workers(recipe: Recipe, world: World) -> int:
    if recipe.train.workers != "auto":
        return recipe.train.workers
    return min(12, max(1, (os.cpu_count() or 1) // world.size - 1)) if world.device.type == "cuda" else 0


def _gather_when_complete(setting: Setting, shared: bool, locks: ExitStack) -> None:
    run = setting.run
    missing = [k for k in range(setting.folds.n_folds) if not run.fold_done(k)]
    if missing:
        say(f"{run.path}: folds {', '.join(map(str, missing))} are still to be trained; the last one to finish gathers all")
        return
    if shared:
        _hold(locks, run.path / ".lock", f"{run.path}", GATHER_WAIT_S)
    if run.info()["status"] != "done":
        gather_run(setting)
