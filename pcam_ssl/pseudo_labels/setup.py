"""Open pseudo-label rounds on a finished run, or refuse in one line."""

import os
from pathlib import Path

import numpy as np

from pcam_ssl.blending.members import members_of, own_recipe
from pcam_ssl.cross_validation.checks import check_published, check_start, check_views, warn_of_unused_keys
from pcam_ssl.cross_validation.cross_validate import baseline, folds_of, loader_workers, metric_train
from pcam_ssl.cross_validation.frozen import open_frozen
from pcam_ssl.cross_validation.training_data import check_batches, describe_pool
from pcam_ssl.cross_validation.training_pixels import check_room, for_device
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import Folds, Unit, labelled_rows, read_folds
from pcam_ssl.data.pool import pool_facts
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import join_world, own_rank
from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.selectors import selectors_in_use
from pcam_ssl.pseudo_labels.teacher import check_round_0
from pcam_ssl.pseudo_labels.teachers import check_number
from pcam_ssl.pseudo_labels.thresholds import provable_text
from pcam_ssl.recipe.loading import all_stated, flatten, load_recipe
from pcam_ssl.recipe.schema import Recipe, learns_from_pool
from pcam_ssl.runs.run import CONTROL, POOLED, ROUNDS, ROUNDS_FILE, Run, check_no_dataset
from pcam_ssl.terminal import say

FIXED = ("seed", "data.", "cv.", "predict.", "neighbours.")
"""Keys that students share with round 0, so that rounds can be compared; they may differ in all others."""

MORE_UNLABELLED = "import a test split or unlabelled patches, or set data.label_budget"


def open_rounds(start: Run, recipe: str | None, settings: list[str], out: Path, data: Path | str | None = None) -> Rounds:
    """What the rounds on a finished run share. Raises UserError where run, recipe, folder, dataset or pool do not allow rounds."""
    info = start.info()
    begun, members = Run(out / "round-1"), members_of(start)
    own = own_recipe(start, members)
    chosen = load_recipe(recipe, settings, begun.recipe if begun.paths.recipe.exists() else own)
    check_recipe(start.path, chosen)
    _check_comparable(start.path, own, chosen)
    for path, theirs in [(member.run.path, member.recipe) for member in members] or [(start.path, own)]:
        _check_calibrated_teacher(path, theirs, chosen)
    _check_students_start(start.path, own, chosen, bool(members))
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
    chosen = for_device(chosen, world.device)
    precision = choose_precision(world.device, chosen.train.precision, chosen.train.channels_last)
    folds = read_folds(start.paths.folds, dataset.patches)
    workers = loader_workers(chosen, world)
    frozen = open_frozen(chosen, dataset, world, precision, workers, rounds=True)
    same = (chosen.model, chosen.features) == (own.model, own.features)
    frozen_0 = frozen if same or members else open_frozen(own, dataset, world, precision, workers)
    rounds = Rounds(chosen, dataset, folds, start, out, world, precision, workers, members, frozen, frozen_0)
    world.run_on_main(lambda: check_views(chosen, dataset))
    world.run_on_main(lambda: warn_of_unused_keys(chosen, rounds=True))
    world.run_on_main(lambda: check_start(chosen, dataset))
    if chosen.model == own.model:
        world.run_on_main(lambda: check_published(start, chosen))
    world.run_on_main(lambda: check_round_0(rounds))
    world.run_on_main(lambda: check_number(rounds))
    world.run_on_main(lambda: _check_pools(rounds))
    world.run_on_main(lambda: _check_batches(rounds))
    world.run_on_main(lambda: check_room(chosen, dataset, folds, rounds.units, world, pool=True))
    if chosen.optim.name != "lbfgs":
        world.share(chosen.train.batch_size, "train.batch_size")
    return rounds


def find_or_train_round_0(path: Path, recipe: str | None, settings: list[str], data: Path | str | None) -> Run:
    """The finished run at `path`; it is trained or continued first where it is not finished. Raises UserError as `open_rounds` does."""
    run = Run(path)
    if run.paths.provenance.exists():
        info = run.info()
        if info["command"] == ROUNDS:
            raise UserError(f"{path}: is a pseudo-label round; name the run it belongs to ({info.get('round_0', 'unknown')})")
        if info.get("status") == "done":
            return run
        chosen, data = run.recipe, data or info["dataset"]
        requested = load_recipe(recipe, settings, chosen)
        check_recipe(path, requested)
    else:
        check_no_dataset(run.path)
        requested = chosen = load_recipe("baseline" if recipe is None else recipe, settings)
        check_recipe(path, chosen)
        data = data or os.environ.get("PCAM_SSL_DATA", "data/pcam")
        _check_some_unlabelled(chosen, data)
        if not own_rank():
            say(f"{path}: no run found, so round 0 is trained first")
            warn_of_unused_keys(chosen, rounds=True)
        # What the rounds make use of is known here only, so the training of round 0 must not warn.
        chosen = all_stated(chosen)
    dataset = open_dataset(data)
    _say_provable(
        requested, dataset, read_folds(run.paths.folds, dataset.patches) if run.paths.folds.exists() else folds_of(chosen, dataset)
    )
    train = metric_train if chosen.method.name == "metric" else baseline
    return train(chosen, data, path)


def folder_of_rounds(start: Run, out: Path | str | None, pooled: bool) -> Path:
    """The folder of the rounds: `out`, else that of round 0, or a folder in it for pooled rounds."""
    if out is not None:
        return Path(out)
    return start.path / POOLED if pooled else start.path


def check_recipe(path: Path | str, recipe: Recipe) -> None:
    """Raises UserError for a recipe without rounds: its method, its kNN or its selectors do not allow them."""
    if learns_from_pool(recipe.method):
        raise UserError(
            f"{path}: method {recipe.method.name} learns from the pool already; start rounds from a supervised or metric run"
        )
    if recipe.pseudo.agreement and not recipe.uses_knn:
        raise UserError(
            f"pseudo.agreement: {path} has no kNN; train a run with neighbours.use=true, or with `pcam-ssl metric-train`"
        )
    options = recipe.pseudo
    if not any(selector.rule for selector in selectors_in_use(options).values()):
        raise UserError(
            "pseudo: no selector decides which patches are confident; set pseudo.precision, confidence, top_share or k_best"
        )


def _check_comparable(path: Path, own: Recipe, recipe: Recipe) -> None:
    """Raises UserError for students that cannot be compared with round 0, whose recipe is `own`."""
    before, now = flatten(own.dump()), flatten(recipe.dump())
    fixed = FIXED
    if recipe.predict.random_views:
        fixed += ("views.policy", "views.strength")
        # Otherwise the file of views only serves the students' noise.
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
    """Raises UserError for selectors that need a classifier where the teacher of round 1, of recipe `own`, has none."""
    needed = [key for key, on in (("agreement", recipe.pseudo.agreement), ("view_std", recipe.pseudo.view_std is not None)) if on]
    if needed and own.scored_by == "knn":
        raise UserError(
            f"pseudo.{needed[0]} needs a classifier, and {path} has none (method.classify=false); leave it out, or train a run with method.classify=true"
        )


def _check_students_start(path: Path, own: Recipe, recipe: Recipe, is_blend: bool) -> None:
    """Raises UserError where students cannot start from their teacher, whose recipe is `own` in round 1."""
    if recipe.pseudo.start != "teacher":
        return
    if is_blend:
        raise UserError(f"pseudo.start=teacher: {path} is a blend, which has no weights of its own; leave it out")
    if recipe.optim.name == "lbfgs":
        raise UserError(
            "pseudo.start=teacher: optim.name=lbfgs fits heads to the optimum, wherever they start; leave it out, or train by adamw"
        )
    if (own.model, own.method.name) != (recipe.model, recipe.method.name):
        raise UserError(
            f"pseudo.start=teacher: students have another network than {path} (sections model and method); leave out what changes them"
        )


def _check_folder(start: Run, out: Path) -> None:
    """Raises UserError where `out` is another run, which would then look like round 0, or holds other files."""
    if Run(out).paths.provenance.exists() and out.resolve() != start.path.resolve():
        raise UserError(f"{out}: holds another run, and these rounds start from {start.path}; choose another --out")
    control = Run(out / CONTROL)
    if control.paths.provenance.exists() and control.info()["command"] != ROUNDS:
        raise UserError(f"{control.path}: holds another run, where these rounds put their control; choose another --out")
    foreign = [each.name for each in out.iterdir() if not _of_rounds(each.name)] if out.is_dir() else []
    if foreign and out.resolve() != start.path.resolve():
        raise UserError(f"{out}: holds {sorted(foreign)[0]}, which no pseudo-label round writes; choose another --out")


def _of_rounds(name: str) -> bool:
    """Whether rounds write a file of that name; hidden files are locks or left by an interruption."""
    return name.startswith((".", "round-")) or name in (ROUNDS_FILE, CONTROL, "planted", "teachers")


def _check_some_unlabelled(recipe: Recipe, data: Path | str) -> None:
    """Raises UserError for a dataset without unlabelled patches, before hours are spent on round 0."""
    patches = open_dataset(data).patches
    if not recipe.data.hides_labels and len(labelled_rows(patches)) == len(patches):
        raise UserError(f"{data}: has no unlabelled patches to learn from: {MORE_UNLABELLED}")


def _check_pools(rounds: Rounds) -> None:
    for unit in rounds.units:
        if (problem := pool_problem(rounds.recipe, rounds.dataset, rounds.folds, unit)) is not None:
            raise UserError(f"{unit.name} of {rounds.start.path} has {''.join(problem)}")


def pool_problem(recipe: Recipe, dataset: Dataset, folds: Folds, unit: Unit) -> tuple[str, str] | None:
    """What a unit has in place of a pool for rounds, and what to do; None where its pool is large enough."""
    n, batch = pool_facts(dataset, folds, unit)["patches"], recipe.train.batch_size
    if not n:
        return "no unlabelled patches to learn from", f": {MORE_UNLABELLED}"
    if n < batch and recipe.optim.name != "lbfgs":
        return f"a pool of {n} patches, fewer than a batch of {batch}", "; import more, or lower train.batch_size"
    return None


def _check_batches(rounds: Rounds) -> None:
    """Raises UserError where the labels alone cannot fill a student's batches."""
    recipe, labels = rounds.recipe, rounds.context(0).rows.label.to_numpy(np.int64)
    if recipe.method.name == "metric" and recipe.train.batch_size < 4:
        raise UserError(
            f"train.batch_size is {recipe.train.batch_size}; labels and pseudo-labels of two classes share a batch, so set it to 4 or more"
        )
    for unit in (each for whole in rounds.units for each in (whole, *whole.parts)):
        check_batches(recipe, labels[unit.train])


def describe_rounds(rounds: Rounds) -> None:
    """Print the recipe of the students of a blend, the precision that can be proven, and the pool of each unit."""
    if rounds.members:
        say(
            f"{rounds.start.path}: a blend has no recipe; its students and the precision check train with that of its first run"
            f" {rounds.members[0].run.path}, changed by --recipe and --set"
        )
    _say_provable(rounds.recipe, rounds.dataset, rounds.folds)
    for unit in rounds.units:
        say(f"{unit.name}: pool of {describe_pool(pool_facts(rounds.dataset, rounds.folds, unit))}")


def _say_provable(recipe: Recipe, dataset: Dataset, folds: Folds) -> None:
    text = provable_text(recipe.pseudo, dataset, folds)
    if text is not None and not own_rank():
        say(text)
