"""`pcam-ssl pseudo-label`: rounds of pseudo-labels on a finished run. A round selects with the networks of the round before, trains new students, and scores them out of fold; then the control is trained."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pcam_ssl.blending.members import members_of, own_recipe
from pcam_ssl.cross_validation.aggregate import aggregate_run
from pcam_ssl.cross_validation.cross_validate import train_missing
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder, remove_folder
from pcam_ssl.pseudo_labels.collect import stop_after, teacher_predictions_of_pool, truth_of_pool, write_verdict
from pcam_ssl.pseudo_labels.control import find_or_train_control
from pcam_ssl.pseudo_labels.experiment import WITHHELD, Rounds
from pcam_ssl.pseudo_labels.headroom import find_headroom
from pcam_ssl.pseudo_labels.labeling import select, with_pseudo_labels
from pcam_ssl.pseudo_labels.precision_check import precision_check
from pcam_ssl.pseudo_labels.setup import describe_rounds, find_or_train_round_0, folder_of_rounds, open_rounds
from pcam_ssl.pseudo_labels.stopping import added_too_few, ratio_off, too_many_flips
from pcam_ssl.pseudo_labels.teachers import train_teachers
from pcam_ssl.recipe.loading import load_recipe, recipe_digest
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.terminal import say, warn
from pcam_ssl.training.checkpoint import interruptible


def pseudo_label(
    path: Path | str,
    wanted: int = 3,
    *,
    recipe: str | None = None,
    settings: list[str] | tuple[str, ...] = (),
    out: Path | str | None = None,
    data: Path | str | None = None,
    pooled: bool = False,
    anyway: bool = False,
) -> dict[str, Any]:
    """Make `wanted` rounds on the run at `path` and return the verdict (the values of rounds.json).

    The run is trained first where it is not finished; finished rounds are kept. `recipe` (a shipped name or a file) and `settings`
    change the run's own recipe for the students and the selection. Rounds are written to `out`, by default the run's folder. Raises
    UserError where run, recipe, folder, dataset or pool do not allow rounds, and before the first one where the forecast (`find_headroom`)
    says that it cannot be seen to help, unless `anyway`.
    """
    if wanted < 1:
        raise UserError(f"--rounds {wanted}: ask for at least one round")
    if out is not None:
        check_folder("--out", out)
    start = find_or_train_round_0(Path(path), recipe, list(settings), data)
    settings = [*settings, "pseudo.pooled=true"] if pooled else list(settings)
    pooled = load_recipe(recipe, settings, own_recipe(start, members_of(start))).pseudo.pooled
    rounds = open_rounds(start, recipe, settings, folder_of_rounds(start, out, pooled), data)
    world = rounds.world
    with interruptible(str(rounds.out)), ExitStack() as locks:
        lock = rounds.out / ".rounds.lock"
        world.run_on_main(lambda: locks.enter_context(lock_file(lock, f"pseudo-label rounds of {rounds.out}")) and None)
        world.run_on_main(lambda: describe_rounds(rounds))
        headroom = find_headroom(rounds, anyway)
        planted = precision_check(rounds)
        stopped = _check_stop(rounds, planted)
        if stopped is None:
            train_teachers(rounds)
        last = 0
        while last < wanted and stopped is None:
            if (stopped := run_round(rounds, last + 1)) is None:
                last += 1
                # A round that was made earlier, under other stop rules, is part of the verdict.
                made = rounds.run(last + 1).paths.scores.exists()
                stopped = stop_after(rounds, last) if last < wanted and not made else None
        control = find_or_train_control(rounds, last)
        truth = truth_of_pool(rounds)
        seen = [teacher_predictions_of_pool(rounds, number, truth) for number in range(last + 1)]
        return world.run_on_main(lambda: write_verdict(rounds, last, headroom, planted, stopped, seen, control))


def _check_stop(rounds: Rounds, planted: dict | None) -> str | None:
    if planted is None or planted["met"]:
        return None
    if not rounds.recipe.pseudo.planted_stop:
        warn(f"{planted['reason']}; continuing, since pseudo.planted_stop is false")
        return None
    return f"{planted['reason']} (pseudo.planted_stop=true; raise pseudo.precision_level or lower pseudo.precision, or set planted_stop=false)"


def run_round(rounds: Rounds, number: int) -> str | None:
    """Make round `number`, or the rest of it. Returns None, or the sentence of the rule that stopped it before its students trained."""
    world, run = rounds.world, rounds.run(number)
    world.run_on_main(lambda: _begin(rounds, number))
    facts = select(rounds, number)
    if world.run_on_main(lambda: run.info().get("status") == "done" and run.paths.scores.exists()):
        return None
    if (stopped := stop_before(rounds, facts)) is not None:
        return stopped
    context = rounds.context(number)
    for unit in with_pseudo_labels(rounds, number):
        train_missing(context, unit)
    world.run_on_main(lambda: _aggregate(rounds, number))
    return None


def stop_before(rounds: Rounds, facts: list[dict]) -> str | None:
    """The sentence of the first rule against training students on this selection; None where no rule applies."""
    options = rounds.recipe.pseudo
    rules = (
        (added_too_few, options.stop_share),
        (ratio_off, options.stop_ratio),
        (too_many_flips, options.stop_flips),
    )
    return next((sentence for rule, limit in rules if (sentence := rule(facts, limit)) is not None), None)


def _begin(rounds: Rounds, number: int) -> None:
    _drop_untrained(rounds, number)
    run = rounds.run(number)
    if rounds.begin(run, round=number, learned_from_pool=True):
        say(f"{run.path}: round {number}, {rounds.folds.n_folds} folds on {rounds.world.device.type} in {rounds.precision.name}")


def _drop_untrained(rounds: Rounds, number: int) -> None:
    """Remove a selection of another recipe, where no student was trained on it yet."""
    run = rounds.run(number)
    if not run.paths.provenance.exists() or any(run.path.glob("*/model.safetensors")) or any(run.path.glob("*/last*")):
        return
    if run.info()["recipe_digest"] != recipe_digest(rounds.recipe, rounds=True):
        say(f"{run.path}: selected with another recipe and not trained on yet; the selection is made again")
        remove_folder(run.path)


def _aggregate(rounds: Rounds, number: int) -> None:
    aggregate_run(rounds.context(number), rounds.colour_baseline(), WITHHELD if rounds.recipe.pseudo.pooled else None)
