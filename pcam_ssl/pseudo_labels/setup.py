"""Opening rounds on a finished run, or refusing in one line what cannot be done."""

import os
from pathlib import Path

import numpy as np

from pcam_ssl.blending.members import members_of, own_recipe
from pcam_ssl.cross_validation.checks import check_views
from pcam_ssl.cross_validation.cross_validate import baseline, folds_of, loader_workers, metric_train
from pcam_ssl.cross_validation.training_data import check_batches, describe_pool
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import Folds, labelled_rows, read_folds
from pcam_ssl.data.pool import pool_facts
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import join_world, own_rank
from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.selectors import selectors_in_use
from pcam_ssl.pseudo_labels.teacher import check_round_0
from pcam_ssl.pseudo_labels.thresholds import provable_text
from pcam_ssl.recipe.loading import flatten, load_recipe
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.runs.run import POOLED, ROUNDS, ROUNDS_FILE, Run
from pcam_ssl.terminal import say

FIXED = ("seed", "data.", "cv.", "predict.", "neighbours.")
"""Keys by which rounds are compared: students may differ from round 0 in all others."""

MORE_UNLABELLED = "import a test split or unlabelled patches, or set data.label_budget"


def open_rounds(start: Run, recipe: str | None, settings: list[str], out: Path, data: Path | str | None = None) -> Rounds:
    """Everything the rounds on a finished run share. Raises UserError where they cannot be done."""
    info = start.info()
    begun, members = Run(out / "round-1"), members_of(start)
    own = own_recipe(start, members)
    chosen = load_recipe(recipe, settings, begun.recipe if begun.paths.recipe.exists() else own)
    _check_recipe(start.path, chosen)
    _check_kept(start.path, own, chosen)
    for path, theirs in [(member.run.path, member.recipe) for member in members] or [(start.path, own)]:
        _check_calibrated_teacher(path, theirs, chosen)
    _check_folder(start, out)
    if data is None and not Path(info["dataset"]).exists():
        raise UserError(f"{start.path}: its dataset {info['dataset']} is not there any more; say where it is with --data DATASET")
    dataset = open_dataset(data or info["dataset"])
    if dataset.digest != info["dataset_digest"]:
        raise UserError(
            f"{start.path}: trained on dataset {info['dataset']} ({info['dataset_digest'][:12]}), {dataset.path} is {dataset.digest[:12]};"
            " name that dataset with --data, or train a run on this one"
        )
    world = join_world(chosen.train.device)
    precision = choose_precision(world.device, chosen.train.precision, chosen.train.channels_last)
    folds = read_folds(start.paths.folds, dataset.patches)
    rounds = Rounds(chosen, dataset, folds, start, out, world, precision, loader_workers(chosen, world), members)
    world.run_on_main(lambda: check_views(chosen, dataset))
    world.run_on_main(lambda: check_round_0(rounds))
    world.run_on_main(lambda: _check_pools(rounds))
    world.run_on_main(lambda: _check_batches(rounds))
    world.share(chosen.train.batch_size, "train.batch_size")
    return rounds


def find_or_train_round_0(path: Path, recipe: str | None, settings: list[str], data: Path | str | None) -> Run:
    """The finished run at `path`; begun or continued where it is not."""
    run = Run(path)
    if run.paths.provenance.exists():
        info = run.info()
        if info["command"] == ROUNDS:
            raise UserError(
                f"{path}: is a pseudo-label round itself; name the run it belongs to ({info.get('round_0', 'unknown')})"
            )
        if info.get("status") == "done":
            return run
        chosen, data = run.recipe, data or info["dataset"]
        asked = load_recipe(recipe, settings, chosen)
        _check_recipe(path, asked)
    else:
        asked = chosen = load_recipe("baseline" if recipe is None else recipe, settings)
        _check_recipe(path, chosen)
        data = data or os.environ.get("PCAM_SSL_DATA", "data/pcam")
        _check_some_unlabelled(chosen, data)
        if not own_rank():
            say(f"{path}: no run there, so round 0 is trained first")
    dataset = open_dataset(data)
    _tell_provable(
        asked, dataset, read_folds(run.paths.folds, dataset.patches) if run.paths.folds.exists() else folds_of(chosen, dataset)
    )
    train = metric_train if chosen.method.name == "metric" else baseline
    return train(chosen, data, path)


def folder_of_rounds(start: Run, out: Path | str | None, pooled: bool) -> Path:
    if out is not None:
        return Path(out)
    return start.path / POOLED if pooled else start.path


def _check_recipe(path: Path, recipe: Recipe) -> None:
    """Refuse what no run at `path` could be followed by."""
    if learns_from_pool(recipe.method):
        raise UserError(
            f"{path}: method {recipe.method.name} learns from the pool by itself; start rounds from a supervised or metric run"
        )
    knn = recipe.method.name == "metric" if recipe.neighbours.use == "auto" else recipe.neighbours.use
    if recipe.pseudo.agreement and not knn:
        raise UserError(
            f"pseudo.agreement: {path} has no kNN; train a run with neighbours.use=true, or with `pcam-ssl metric-train`"
        )
    options = recipe.pseudo
    if not any(selector.rule for selector in selectors_in_use(options).values()):
        raise UserError("pseudo: nothing says which patches are sure enough; set pseudo.precision, confidence, top_share or k_best")


def _check_kept(path: Path, own: Recipe, recipe: Recipe) -> None:
    """Refuse students that could not be compared with round 0, whose recipe is `own`."""
    before, now = flatten(own.dump()), flatten(recipe.dump())
    fixed = FIXED
    if recipe.predict.random_views:
        fixed += ("views.policy", "views.strength")
        # Elsewhere a file of views is for the students' noise alone.
        fixed += ("views.transform",) if "file" in (own.views.policy, recipe.views.policy) else ()
    changed = [
        f"{key}: {before.get(key)} -> {now.get(key)}"
        for key in sorted(before | now)
        if key.startswith(fixed) and now.get(key) != before.get(key)
    ]
    if changed:
        raise UserError(
            f"{path}: rounds keep the folds and test views of round 0 ({'; '.join(changed)}); train another run with those keys"
        )


def _check_calibrated_teacher(path: Path, own: Recipe, recipe: Recipe) -> None:
    """Refuse selectors that ask a classifier where the run that labels the first pool, of recipe `own`, has trained none."""
    asked = [key for key, on in (("agreement", recipe.pseudo.agreement), ("view_std", recipe.pseudo.view_std is not None)) if on]
    if asked and own.scored_by == "knn":
        raise UserError(
            f"pseudo.{asked[0]} asks a classifier, and {path} has none (method.classify=false); drop it, or train a run with method.classify=true"
        )


def _check_folder(start: Run, out: Path) -> None:
    """Refuse to put rounds into another run, which would then pass for their round 0."""
    if Run(out).paths.provenance.exists() and out.resolve() != start.path.resolve():
        raise UserError(f"{out}: holds another run, and these rounds start from {start.path}; choose another --out")
    foreign = [each.name for each in out.iterdir() if not _of_rounds(each.name)] if out.is_dir() else []
    if foreign and out.resolve() != start.path.resolve():
        raise UserError(f"{out}: holds {sorted(foreign)[0]}, which is no part of pseudo-label rounds; choose another --out")


def _of_rounds(name: str) -> bool:
    """Whether rounds leave something of that name; whatever is hidden was left by a kill, or is a lock."""
    return name.startswith((".", "round-")) or name in (ROUNDS_FILE, "planted")


def _check_some_unlabelled(recipe: Recipe, data: Path | str) -> None:
    """Refuse a dataset without a pool before hours are spent on round 0."""
    patches = open_dataset(data).patches
    if recipe.data.label_budget is None and len(labelled_rows(patches)) == len(patches):
        raise UserError(f"{data}: has no unlabelled patches to learn from: {MORE_UNLABELLED}")


def _check_pools(rounds: Rounds) -> None:
    for unit in rounds.units:
        n, batch = pool_facts(rounds.dataset, rounds.folds, unit)["patches"], rounds.recipe.train.batch_size
        if not n:
            raise UserError(f"{unit.name} of {rounds.start.path} has no unlabelled patches to learn from: {MORE_UNLABELLED}")
        if n < batch:
            raise UserError(
                f"{unit.name} of {rounds.start.path} has a pool of {n} patches, less than a batch of {batch}; import more, or lower train.batch_size"
            )


def _check_batches(rounds: Rounds) -> None:
    """Whatever the selection adds, a student's labels must be able to fill its batches."""
    recipe, labels = rounds.recipe, rounds.context(0).rows.label.to_numpy(np.int64)
    if recipe.method.name == "metric" and recipe.train.batch_size < 4:
        raise UserError(
            f"train.batch_size is {recipe.train.batch_size}; labels and pseudo-labels of two classes share a batch, so make it 4 or more"
        )
    for unit in rounds.units:
        check_batches(recipe, labels[unit.train])


def describe_rounds(rounds: Rounds) -> None:
    if rounds.members:
        say(
            f"{rounds.start.path}: a blend has no recipe; its students, and the planted check, train under that of its first run"
            f" {rounds.members[0].run.path} as --recipe and --set change it"
        )
    _tell_provable(rounds.recipe, rounds.dataset, rounds.folds)
    for unit in rounds.units:
        say(f"{unit.name}: pool of {describe_pool(pool_facts(rounds.dataset, rounds.folds, unit))}")


def _tell_provable(recipe: Recipe, dataset: Dataset, folds: Folds) -> None:
    text = provable_text(recipe.pseudo, dataset, folds)
    if text is not None and not own_rank():
        say(text)
