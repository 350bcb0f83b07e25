"""One pseudo-label round: select with the networks of the round before, train fresh students, score them out of fold."""

import shutil
import sys

import pandas as pd

from pcam_ssl.cross_validation.aggregate import gather_run
from pcam_ssl.cross_validation.checks import selected_on_fold
from pcam_ssl.cross_validation.cross_validate import train_missing
from pcam_ssl.data.folds import write_folds
from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.experiment import WITHHELD, Rounds
from pcam_ssl.pseudo_labels.labeling import select, with_pseudo_labels
from pcam_ssl.pseudo_labels.stopping import added_too_few, ratio_off, too_many_flips
from pcam_ssl.recipe.loading import recipe_digest
from pcam_ssl.runs.run import begin_run, find_run
from pcam_ssl.tables import read_predictions
from pcam_ssl.terminal import say


def run_round(rounds: Rounds, number: int) -> str | None:
    """Do round `number`, or what is missing of it. Returns None, or the sentence of the rule that stopped it before its students trained."""
    world, run = rounds.world, rounds.run(number)
    world.lead(lambda: _begin(rounds, number))
    facts = select(rounds, number)
    if world.lead(lambda: run.info().get("status") == "done" and run.scores.exists()):
        return None
    if (stopped := stop_before(rounds, facts)) is not None:
        return stopped
    setting = rounds.setting(number)
    for unit in with_pseudo_labels(rounds, number):
        train_missing(setting, unit)
    world.lead(lambda: _gather(rounds, number))
    return None


def stop_before(rounds: Rounds, facts: list[dict]) -> str | None:
    """The first rule that speaks against training students on what was selected."""
    options = rounds.recipe.pseudo
    rules = (
        (added_too_few, options.stop_share),
        (ratio_off, options.stop_ratio),
        (too_many_flips, options.stop_flips),
    )
    return next((sentence for rule, limit in rules if (sentence := rule(facts, limit)) is not None), None)


def _begin(rounds: Rounds, number: int) -> None:
    _drop_untrained(rounds, number)
    run = find_run(rounds.run(number).path, *rounds.identity)
    if not run.provenance.exists():
        begin_run(run, *rounds.identity)
    info = run.info()
    if not run.folds.exists():
        write_folds(rounds.folds, run.folds, run.table_notes(info))
    begun = {"round": number, "round_0": str(rounds.start.path.resolve()), "round_0_digest": rounds.start.info()["recipe_digest"]}
    if info.get("round_0_digest", begun["round_0_digest"]) != begun["round_0_digest"]:
        raise UserError(f"{run.path}: its round 0 was another run ({info['round_0']}); choose another --out, or delete that folder")
    if info.get("status") == "done":
        return
    run.update(
        **begun,
        device=str(rounds.world.device),
        processes=rounds.world.size,
        precision=rounds.precision.to_dict(),
        argv=sys.argv,
        selected_on_fold=selected_on_fold(rounds.recipe) or rounds.start.info()["selected_on_fold"],
        learned_from_pool=True,
    )
    say(f"{run.path}: round {number}, {rounds.folds.n_folds} folds on {rounds.world.device.type} in {rounds.precision.name}")


def _drop_untrained(rounds: Rounds, number: int) -> None:
    """A selection of another recipe that no student was trained on binds nobody: it is made again."""
    run = rounds.run(number)
    if not run.provenance.exists() or any(run.path.glob("*/model.safetensors")) or any(run.path.glob("*/last*")):
        return
    if run.info()["recipe_digest"] != recipe_digest(rounds.recipe, rounds=True):
        say(f"{run.path}: selected under another recipe, and nothing was trained on it; it is selected again")
        # Half removed under its own name, it would be no run and no empty folder either.
        dropped = run.path.with_name(f".{run.path.name}.dropped")
        shutil.rmtree(dropped, ignore_errors=True)
        run.path.rename(dropped)
        shutil.rmtree(dropped)


def _gather(rounds: Rounds, number: int) -> None:
    floor = rounds.start.path / "floor.parquet"
    known: pd.DataFrame | None = read_predictions(floor) if rounds.recipe.score.floor and floor.exists() else None
    gather_run(rounds.setting(number), known, WITHHELD if rounds.recipe.pseudo.pooled else None)
