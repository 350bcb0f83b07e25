"""Precision check on hidden labels: hide the labels of some training slides, select pseudo-labels among their patches, and measure their precision."""

from dataclasses import replace

import numpy as np
import pandas as pd

from pcam_ssl.cross_validation.cross_validate import train_missing
from pcam_ssl.cross_validation.training_data import scarce_words
from pcam_ssl.data.folds import Unit, with_parts
from pcam_ssl.data.splits import inner_groups
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.confidence import share_interval
from pcam_ssl.evaluation.metrics import predicted_class
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.labeling import decide_mixed
from pcam_ssl.pseudo_labels.teacher import further_opinions, inner_evidence, teacher_digest
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.runs.begin import begin_run, find_run
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import CLASSES, read_predictions
from pcam_ssl.terminal import say


def precision_check(rounds: Rounds) -> dict | None:
    """Precision and coverage of the selection by class, on training slides with hidden labels; None where the recipe has no check.

    A network is trained without these (planted) slides and calibrated on the usual inner slides. The recipe's selection then runs on
    its predictions of them. No round uses these predictions or networks.
    """
    options = rounds.recipe.pseudo
    if not options.planted_share:
        return None
    run = Run(rounds.out / "planted")
    rounds.world.run_on_main(lambda: _begin(run, rounds))
    context = rounds.context_of(run)
    units = [check_unit(rounds, unit) for unit in rounds.units[: min(options.planted_folds, rounds.folds.n_folds)]]
    for unit in units:
        if rounds.world.is_main:
            say(
                f"precision check, {unit.name}: {int(unit.score.sum()):,} labels of {_slides(context, unit)} training slides are hidden"
            )
            if (words := scarce_words(rounds.recipe, context.rows.label.to_numpy(np.int64)[unit.train])) is not None:
                say(f"precision check, {unit.name}: {words}")
        train_missing(context, unit)
    return rounds.world.run_on_main(lambda: _printed(_scores(rounds, run, units)))


def check_unit(rounds: Rounds, unit: Unit) -> Unit:
    """The unit trained without its planted slides; it scores those instead of its own."""
    frame = rounds.folds.frame
    codes, _ = pd.factorize(frame.group)
    labels = rounds.context(0).rows.label.to_numpy(np.int64)
    try:
        chosen = inner_groups(
            codes[unit.train], labels[unit.train], rounds.recipe.pseudo.planted_share, (rounds.recipe.seed, 7, unit.number)
        )
    except ValueError:
        raise UserError(
            f"{unit.name} trains on one slide, so none is left for the precision check; set pseudo.planted_share=0 to skip it"
        ) from None
    planted = unit.train & np.isin(codes, chosen)
    if len(np.unique(labels[unit.train & ~planted])) < 2:
        raise UserError(
            f"{unit.name} without {pseudo_share(rounds)} of its slides trains on one class; lower pseudo.planted_share, or set it to 0 to skip the precision check"
        )
    # Another number: first weights and batches of the check differ from those of the fold.
    number = rounds.folds.n_folds + 1 + unit.number
    check = replace(unit, number=number, train=unit.train & ~planted, inner=unit.inner & ~planted, score=planted, test=False)
    return with_parts(check, rounds.folds.parts(unit.number)) if unit.parts else check


def pseudo_share(rounds: Rounds) -> str:
    """The planted share in words."""
    return f"{rounds.recipe.pseudo.planted_share:.0%}"


def _begin(run: Run, rounds: Rounds) -> None:
    """Open the run of the check. Its networks depend on the planted slides alone, so that another selection reuses them."""
    recipe, dataset, command = rounds.identity
    recipe = recipe.model_copy(update={"pseudo": Pseudo(planted_share=recipe.pseudo.planted_share)})
    find_run(run.path, recipe, dataset, command)
    if not run.paths.provenance.exists():
        begin_run(run, recipe, dataset, command)


def _slides(context, unit: Unit) -> int:
    return context.folds.frame.group[unit.score].nunique()


def _scores(rounds: Rounds, run: Run, units: list[Unit]) -> dict:
    target = rounds.recipe.pseudo.planted_precision or rounds.recipe.pseudo.precision
    decisions_of, truths = [], []
    for unit in units:
        folder = run.unit(unit.name)
        table = read_predictions(folder / "oof.parquet")
        pool = _without_labels(rounds, folder, table)
        inner, cluster = inner_evidence(folder, rounds.folds)
        decisions, _ = decide_mixed(rounds, 1, pool, inner, None, teacher_digest(folder), cluster, unit.train)
        decisions_of.append(decisions)
        truths.append(table[["id", "label", "wsi"]].assign(wsi=_groups(rounds, table.id)))
    scores = added_scores(pd.concat(decisions_of, ignore_index=True), pd.concat(truths, ignore_index=True))
    missed = [
        f"{name} {scores['precision'][name]['value']:.3f}"
        for name in ("tumor", "normal")
        if target is not None and scores["precision"][name]["value"] is not None and scores["precision"][name]["value"] < target
    ]
    reason = f"the precision of planted pseudo-labels is below {target}: {', '.join(missed)}" if missed else None
    return {
        "target": target,
        "folds": [unit.number - rounds.folds.n_folds - 1 for unit in units],
        "classes": _by_class(scores),
        "met": not missed,
        "reason": reason,
    }


def _printed(check: dict) -> dict:
    """Print the result before hours are spent on rounds, and return it."""
    for name, entry in check["classes"].items():
        say(f"precision check, {name}: precision {_interval(entry['precision'])}, coverage {_interval(entry['coverage'])}")
    return check


def _interval(score: dict) -> str:
    if score["value"] is None:
        return f"not known ({score['reason']})"
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) of {score['n']}"


def _by_class(scores: dict) -> dict[str, dict]:
    return {
        name: {
            "precision": scores["precision"][name],
            "coverage": scores["coverage"][name],
            "added": scores["precision"][name]["n"],
            "of": scores["coverage"][name]["n"],
        }
        for name in ("tumor", "normal")
    }


def _groups(rounds: Rounds, ids: pd.Series) -> np.ndarray:
    return rounds.folds.frame.set_index("id").group.loc[ids].to_numpy()


def _without_labels(rounds: Rounds, folder, table: pd.DataFrame) -> pd.DataFrame:
    hashes = rounds.dataset.patches.set_index("id").view_hash.loc[table.id].array
    return table.drop(columns="label").assign(**further_opinions(folder, "oof", table.id), view_hash=hashes)


def added_scores(decisions: pd.DataFrame, truth: pd.DataFrame, level: float = 0.95) -> dict:
    """Precision and coverage of the decisions of one or several folds, by class and over all.

    `truth` has `id` (repeats are one patch), `label` (NA where unknown), `wsi`; decisions on patches without a label are ignored.
    Precision of class c: of the patches added as c, the share that is truly c. Coverage of class c: of the pool's patches that are
    truly c, the share that was added, with either label; over all: of the pool's patches, the share that was added.
    Returns {"known": patches of known label, "added": those added, "precision": {normal, tumor, all}, "coverage": the same, "predicted": the
    precision that the calibrated probs of these patches promised, None without patches}. Each score has value, low, high, right and n as in
    `share_interval`: two-sided at `level`, clustered by slide, or by patch where the slide is unknown. Where there is no patch, the value
    is None and `reason` says why.
    """
    truth = truth.loc[truth.label.notna(), ["id", "label", "wsi"]].drop_duplicates("id")
    known = decisions[["id", "label", "prob"]].merge(truth.rename(columns={"label": "true"}), on="id")
    # The decisions of several folds on one patch are not independent.
    clusters = ("slide " + known.wsi.astype("str")).where(known.wsi.notna(), "patch " + known.id.astype("str"))
    added, true, as_called = known.label.notna(), known.true.astype("int8"), predicted_class(known.label)
    promised = known.prob.where(as_called == 1, 1 - known.prob)
    precision, coverage, predicted = {}, {}, {}
    for name, by_label, by_truth in _classes(as_called, true):
        rows = added & by_label
        predicted[name.strip() or "all"] = float(promised[rows].mean()) if rows.any() else None
        precision[name] = _score((as_called == true)[rows], clusters[rows], level, len(known), f"no {name}patch was added")
        coverage[name] = _score(added[by_truth], clusters[by_truth], level, len(known), f"no {name}patch is in the pool")
    return {
        "known": len(known),
        "added": int(added.sum()),
        "precision": {name.strip() or "all": score for name, score in precision.items()},
        "coverage": {name.strip() or "all": score for name, score in coverage.items()},
        "predicted": predicted,
    }


def _classes(as_called, true):
    """For each class: the word before 'patch', the rows with this pseudo-label, and the rows with this label; '' is all."""
    for label, name in enumerate(CLASSES):
        yield name + " ", as_called == label, true == label
    yield "", True, pd.Series(True, index=true.index)


def _score(right: pd.Series, clusters: pd.Series, level: float, n_known: int, reason: str) -> dict:
    score = share_interval(right, clusters, level)
    if score["value"] is None:
        score["reason"] = f"{reason} with a known label" if n_known else "no label of the pool is known"
    return score
