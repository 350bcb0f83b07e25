"""Compare rounds: what each added, how it scores, which is best, whether its gain is more than chance and longer training, and which is used."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import intervals, paired_differences
from pcam_ssl.evaluation.metrics import ROUNDING, auroc, nll
from pcam_ssl.render.format import gain_numbers, gain_word, gain_words, sentence

SCORES = ("auroc", "nll", "balanced_accuracy", "sensitivity_at_specificity_95")
WITHHELD = "withheld: pooled pseudo-labels come from networks that learned the labels these scores would be counted on"


@dataclass(frozen=True)
class RoundTables:
    """The tables of a finished round.

    `oof`: Predictions of all folds, one row per id, None where withheld (pooled). `inner`: by fold, calibrated Predictions of its
    inner slides. `decisions`: one row per pool patch and fold, None for round 0. `labels_used`: number of labels trained on, by fold.
    """

    number: int
    oof: pd.DataFrame | None
    inner: dict[int, pd.DataFrame]
    decisions: pd.DataFrame | None
    labels_used: list[int]


def round_rows(
    rounds: list[RoundTables], groups, resamples: int = 2000, seed: int = 0, control: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """One row of the verdict per round; `rounds` starts with round 0.

    `groups` [N]: the slide of each row of round 0's `oof`, or None (see `bootstrap.intervals`). `control`: out-of-fold Predictions of the
    control, in the order of round 0 (`like_first`). "out_of_fold" holds `SCORES` with intervals, "against_round_0" and "against_control"
    their paired differences (None for round 0, the latter also without a control); where `oof` is withheld all are None with the
    reason. Raises UserError where a round scores other patches than round 0.
    """
    first = rounds[0].oof
    rows = []
    for tables in rounds:
        later, options = tables is not rounds[0], (tables.number, groups, resamples, seed)
        paired = _against(first, tables.oof, *options) if later else None
        above = _against(control, tables.oof, *options) if later and control is not None else None
        rows.append(
            {
                "number": tables.number,
                "labels_used": {"mean": float(np.mean(tables.labels_used)), "by_fold": list(tables.labels_used)},
                "added": None if tables.decisions is None else added_counts(tables.decisions),
                "inner": inner_scores(tables.inner),
                "out_of_fold": _scores(first, tables.oof, tables.number, groups, resamples, seed),
                "against_round_0": paired,
                "against_control": above,
            }
        )
    return rows


def control_scores(first: pd.DataFrame, control: pd.DataFrame, groups, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Scores of the control in the form of `round_rows`; `first` and `control` are out-of-fold Predictions, of round 0 and the control.

    "against_round_0" is None where the control is round 0 itself.
    """
    options = ("control", groups, resamples, seed)
    paired = None if control is first else _against(first, control, *options)
    return {"out_of_fold": _scores(first, control, *options), "against_round_0": paired}


def added_counts(decisions: pd.DataFrame) -> dict[str, int]:
    """Numbers of pseudo-labels summed over folds: by class, and by their change since the round before."""
    added = decisions[decisions.decision == "added"]
    tumor = int((added.label >= 0.5).sum())
    changes = decisions.change.value_counts()
    names = ("new", "kept", "flipped", "taken back")
    return {"tumor": tumor, "normal": len(added) - tumor, **{name.replace(" ", "_"): int(changes.get(name, 0)) for name in names}}


def inner_scores(inner: dict[int, pd.DataFrame]) -> dict[str, Any]:
    """AUROC and NLL (nats) on inner slides, by fold and as mean; a fold whose inner slides hold one class has no AUROC and is excluded."""
    by_fold = {}
    for fold, table in sorted(inner.items()):
        labels = table.label.to_numpy(np.int64)
        by_fold[str(fold)] = {"auroc": auroc(labels, table.prob), "nll": nll(labels, table.prob)}
    return {name: _mean(scores[name] for scores in by_fold.values()) for name in ("auroc", "nll")} | {"by_fold": by_fold}


def choose_round(rounds: list[RoundTables]) -> int:
    """The round of the highest mean inner AUROC over folds; the earliest of equals, and the first where no round has an AUROC.

    A round that added nothing is never chosen: its students differ from round 0 only in their seed.
    """
    rounds = [tables for tables in rounds if tables.decisions is None or (tables.decisions.decision == "added").any()]
    means = [inner_scores(tables.inner)["auroc"] for tables in rounds]
    highest = max((mean for mean in means if mean is not None), default=None)
    if highest is None:
        return rounds[0].number
    # Sums in another order differ in their last digit, which must not choose.
    return min(tables.number for tables, mean in zip(rounds, means, strict=True) if mean is not None and mean >= highest - ROUNDING)


def chosen_by_fold(rounds: list[RoundTables]) -> tuple[dict[int, int], pd.DataFrame | None]:
    """The round chosen by each fold, and the Predictions composed of these rounds in the order of round 0; None where one is withheld.

    A choice by the inner slides of all folds would leak: fold K scores slides that are inner slides of other folds. Here the rows of
    fold K come from the round with the best AUROC on its own inner slides, so that no label it scores influences the choice.
    """
    chosen = {fold: choose_round([_of_fold(tables, fold) for tables in rounds]) for fold in sorted(rounds[0].inner)}
    by_number = {tables.number: tables.oof for tables in rounds}
    first = rounds[0].oof
    if first is None or any(by_number[number] is None for number in chosen.values()):
        return chosen, None
    composed = pd.concat([by_number[number][lambda oof, fold=fold: oof.fold == fold] for fold, number in chosen.items()])
    return chosen, like_first(first, composed, "the chosen rounds")


def _of_fold(tables: RoundTables, fold: int) -> RoundTables:
    decisions = None if tables.decisions is None else tables.decisions[tables.decisions.fold == fold]
    return RoundTables(tables.number, None, {fold: tables.inner[fold]}, decisions, [])


def chosen_scores(
    rounds: list[RoundTables], groups, resamples: int = 2000, seed: int = 0, control: pd.DataFrame | None = None
) -> dict[str, Any]:
    """`chosen_by_fold` as a row of the verdict: {"rounds": {fold: round}, "out_of_fold", "against_round_0", "against_control"}, as in `round_rows`."""
    chosen, oof = chosen_by_fold(rounds)
    first = rounds[0].oof
    return {
        "rounds": {str(fold): number for fold, number in chosen.items()},
        "out_of_fold": _scores(first, oof, "chosen", groups, resamples, seed),
        "against_round_0": _against(first, oof, "chosen", groups, resamples, seed),
        "against_control": None if control is None else _against(control, oof, "chosen", groups, resamples, seed),
    }


def round_in_use(best_inner: int, chosen: dict[str, Any], control: dict[str, Any] | None) -> tuple[int, str]:
    """The round that `predict`, `search`, `blend` and `report` use, and why, in words.

    `best_inner` is that of `choose_round`, `chosen` a row of `chosen_scores`, `control` the entry of rounds.json. It is `best_inner` where the
    rounds that folds chose on inner slides gain measurably in AUROC or NLL over round 0, and over the control too, and lose nothing: AUROC
    is not below round 0's nor measurably below the control's, and NLL not measurably above round 0's. Else it is round 0. So scored
    labels can only reject what inner slides chose.
    """
    if best_inner == 0:
        return 0, "the best on inner slides"
    if control is None:
        return 0, "no control was trained, so no gain over longer training is shown"
    gained = {}
    for name, differences in (("round 0", chosen["against_round_0"]), ("the control", chosen["against_control"])):
        words = {"AUROC": gain_word(differences["auroc"]), "NLL": gain_word(differences["nll"], less_is_better=True)}
        gained[name] = " and ".join(score for score, word in words.items() if word == "a gain")
        if not gained[name]:
            return 0, f"the rounds gain nothing measurable over {name}"
        if words["AUROC"] == "a loss":
            return 0, f"the AUROC of the rounds is measurably lower than that of {name}"
    if chosen["against_round_0"]["auroc"]["value"] < 0:
        return 0, "the AUROC of the rounds is lower than its own"
    if gain_word(chosen["against_round_0"]["nll"], less_is_better=True) == "a loss":
        return 0, "the NLL of the rounds is measurably worse"
    of_first, of_control = gained.values()
    over = "over round 0 and the control" if of_first == of_control else f"over round 0 and in {of_control} over the control"
    return best_inner, f"the best on inner slides, with a measurable gain in {of_first} {over}"


def verdict_sentence(verdict: dict[str, Any]) -> str:
    """Whether rounds helped, in a few sentences, judged by each fold's own choice of round against round 0 and against the control.

    `verdict`: the values "rounds" (as of `round_rows`), "best", "best_inner", "pooled", "control" and "chosen_by_fold" (as of
    `chosen_scores`) of rounds.json.
    """
    made = len(verdict["rounds"]) - 1
    if not made:
        return "No round was made, so nothing is known of a gain."
    of = f"{made} round{'s' if made > 1 else ''}"
    if verdict["pooled"]:
        return (
            f"Pooled: whether {of} helped cannot be told. Out-of-fold scores are withheld, and inner scores flatter too: the "
            f"pseudo-labels come from networks that learned those labels. Round {verdict['best']} is the last one, not one proven best."
        )
    own = verdict["chosen_by_fold"]
    first, now = verdict["rounds"][0]["out_of_fold"]["auroc"]["value"], own["out_of_fold"]["auroc"]["value"]
    if first is None or now is None:
        return f"Whether {of} helped cannot be told: {own['out_of_fold']['auroc']['reason']}."
    told = _gain_sentence(own, verdict["control"], verdict["best"] > 0)
    scored = f"Out-of-fold AUROC goes from {first:.3f} to {now:.3f}, with each fold's round chosen on its own inner slides."
    return f"{told} {scored}{_nll_sentence(own, verdict['control'])} {_use_sentence(verdict, made, of)}"


def _gain_sentence(own: dict[str, Any], control: dict[str, Any] | None, in_use: bool) -> str:
    """The gain in AUROC over round 0 and the control. A gain over round 0 alone is called longer training; what to do in place of rounds is
    said where none is `in_use` (for its NLL)."""
    gain = own["against_round_0"]["auroc"]
    if control is None:
        unknown = "No control was trained, so it is not known whether longer training alone does the same (--set pseudo.control=true tells)."
        return f"{sentence(gain_words(gain))} over round 0. {unknown}"
    if control["is_round_0"]:
        words = gain_words(gain).replace(":", " in AUROC:", 1)
        return f"{sentence(words)} over round 0, which is the control too: heads fitted to the optimum gain nothing by longer training."
    above = own["against_control"]["auroc"]
    as_long = "" if control["steps"] is None else " in as many steps"
    alone = f"the control, which learned from the labels alone{as_long}"
    numbers = f"{gain_numbers(gain)} over round 0, {gain_numbers(above)} over {alone}"
    words = gain_word(gain), gain_word(above)
    if words == ("a gain", "a gain"):
        return f"A gain: {numbers}."
    if words[0] == "a gain":
        much = "more" if words[1] == "a loss" else "as much"
        instead = "" if in_use else f" {_instead(control)}"
        return f"{_by_steps(control)} gains {much} in AUROC: {numbers}.{instead}"
    if words[1] == "a gain":
        if not any(own["rounds"].values()):
            # What gains over the control is round 0, so the rounds have no part in it.
            return (
                f"{sentence(words[0])}: no fold chose a round on its inner slides, so 'own' is round 0 itself. It gains {gain_numbers(above)}"
                f" over {alone}: training on loses."
            )
        return f"A gain in AUROC over the control only: {numbers}. Against round 0 there is {words[0]} in it."
    return f"{sentence(gain_words(gain))}." if gain["low"] is None else f"{sentence(words[0])} in AUROC: {numbers}."


def _nll_sentence(own: dict[str, Any], control: dict[str, Any] | None) -> str:
    """A measurable change of NLL against round 0, and what it is against the control; empty where there is none."""
    change = own["against_round_0"]["nll"]
    word = {"a gain": "better", "a loss": "worse"}.get(gain_word(change, less_is_better=True))
    if word is None:
        return ""
    over = "" if control is None or control["is_round_0"] else f", {gain_numbers(own['against_control']['nll'])} over the control"
    return f" NLL is measurably {word}: {gain_numbers(change)} over round 0{over}."


def _by_steps(control: dict[str, Any]) -> str:
    return "Longer training" if _longer(control) else "Training on the labels alone"


def _longer(control: dict[str, Any]) -> bool:
    return control["round_0_steps"] is not None and sum(control["steps"]) > sum(control["round_0_steps"])


def _instead(control: dict[str, Any]) -> str:
    """What to do in place of rounds."""
    if _longer(control):
        return f"Set train.epochs={control['epochs']} in place of rounds."
    return "The recipe or the seed of the students explains the gain, not their pseudo-labels."


def _use_sentence(verdict: dict[str, Any], made: int, of: str) -> str:
    best, inner = verdict["best"], verdict["best_inner"]
    if best:
        return f"Over all folds round {best} of {made} is {verdict['why']}, so it is used."
    if inner:
        return f"Over all folds round {inner} of {made} is best on inner slides, but round 0 stays in use: {verdict['why']}."
    none = "round 1 does not beat" if made == 1 else f"none of {of} beats"
    kept = f"On the inner slides of all folds together {none} round 0, so round 0 stays in use."
    disagree = (
        " The two disagree where inner slides are few: label more slides, or raise cv.inner_share where folds do not cross-fit."
    )
    gained = gain_word(verdict["chosen_by_fold"]["against_round_0"]["auroc"]) == "a gain"
    return f"{kept}{disagree if gained else ''}"


def like_first(first: pd.DataFrame, oof: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of `oof` in the order of `first`. Raises UserError where they score different ids, naming one."""
    different = set(first.id).symmetric_difference(oof.id)
    if different:
        raise UserError(
            f"{name}: {len(oof):,} patches are scored, {len(first):,} in round 0, {len(different):,} of them in one only, "
            f"first {min(different)}; delete that round's folder and run the command again"
        )
    return oof.set_index("id").loc[first.id].reset_index()


def _scores(first: pd.DataFrame | None, oof: pd.DataFrame | None, number: int | str, groups, resamples: int, seed: int) -> dict:
    if first is None or oof is None:
        return _withheld()
    rows = like_first(first, oof, f"round {number}")
    scores = intervals(rows.label.to_numpy(np.int64), rows.prob, groups, resamples, seed)
    return {name: scores[name] for name in SCORES}


def _against(first: pd.DataFrame | None, oof: pd.DataFrame | None, number: int | str, groups, resamples: int, seed: int) -> dict:
    if first is None or oof is None:
        return _withheld()
    rows = like_first(first, oof, f"round {number}")
    differences = paired_differences(first.label.to_numpy(np.int64), first.prob, rows.prob, groups, resamples, seed)
    return {name: differences[name] for name in SCORES}


def _withheld() -> dict[str, dict]:
    return {name: {"value": None, "low": None, "high": None, "resamples": 0, "reason": WITHHELD} for name in SCORES}


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
