"""What a label curve tells, in words: what more labels would bring, what rounds gain, and whether slides or patches help more."""

from collections.abc import Iterable
from typing import Any

from pcam_ssl.render.format import count, gain_numbers, gain_word, sentence, three


def conclusions(curve: dict[str, Any], by: str) -> list[str]:
    """What rounds gain, where they were asked for, then what more labels would bring."""
    return rounds_sentences(curve["curves"][by]) + sentences(curve, by)


def sentences(curve: dict[str, Any], by: str) -> list[str]:
    """What doubling the labels or slides would bring, and how well smaller budgets foretold the largest."""
    one = curve["curves"][by]
    unit = one["unit"]
    if one["doubled"] is None:
        return [f"What more {unit} would bring cannot be told from {one['reason']}."]
    doubled, last = one["doubled"], one["points"][-1]
    change = f"{amount(doubled['n'] / 2)} to {amount(doubled['n'])} {unit} a network"
    change += f", of the same {one['groups']}" if by == "patches" else ""
    if doubled["told"]:
        moved = "bring" if doubled["gain"]["value"] > 0 else "cost"
        said = [f"Twice the {unit} ({change}) would {moved} {gain_numbers(doubled['gain'])} AUROC."]
    else:
        said = [
            f"What twice the {unit} ({change}) would bring cannot be told: {gain_numbers(doubled['gain'])} AUROC, and {doubled['why']}."
        ]
    if (check := one["check"]) is not None:
        said.append(
            f"Check: the smaller budgets foretold {three(check['predicted'])} for {last['name']}, and {three(check['seen'])} was seen"
            f" ({gain_numbers(check['miss'])}{_holds(check['miss'])})."
        )
    return said


def rounds_sentences(one: dict[str, Any]) -> list[str]:
    """At which budgets rounds gain measurably over the labels alone and over their control, and which budgets have none."""
    if (asked := one.get("rounds")) is None:
        return []
    points = [point for point in one["points"] if point["rounds"] is not None]
    what = "a pseudo-label round" if asked["wanted"] == 1 else f"{asked['wanted']} pseudo-label rounds"
    if any(point["rounds"]["against_control"] is None for point in points):
        alone = _names(point["name"] for point in points if gain_word(point["rounds"]["difference"]) == "a gain")
        untold = (
            "no control was trained, so it is not known whether longer training does the same (--set pseudo.control=true tells)"
        )
        said = [f"AUROC with {what} lies measurably above that of the labels alone at {alone or 'no budget'}; {untold}."]
    else:
        both = "measurably over the labels alone and over the control"
        many = "1 budget" if len(points) == 1 else f"{len(points)} budgets"
        does = "does" if asked["wanted"] == 1 else "do"
        if asked["gaining"]:
            said = [
                f"{sentence(what)} {'gains' if asked['wanted'] == 1 else 'gain'} {both} at {_names(asked['gaining'])} {one['unit']} ({many} compared)."
            ]
        else:
            said = [f"At none of {many} {does} {what} gain {both}."]
    if lost := _names(point["name"] for point in points if gain_word(point["rounds"]["difference"]) == "a loss"):
        said.append(f"A measurable loss against the labels alone at {lost}.")
    said += [note for point in points if (note := _stopped(point, asked["wanted"], one["seeds"])) is not None]
    return said + [f"{name}: no rounds, since {why}." for name, why in asked["left_out"].items()]


def _stopped(point: dict[str, Any], wanted: int, seeds: list[int]) -> str | None:
    """In how many draws fewer rounds were made than asked for, with the reason in the first of them."""
    stopped = [
        (seed, made, why)
        for seed, made, why in zip(seeds, point["rounds"]["made"], point["rounds"]["stopped"], strict=True)
        if why is not None and made < wanted
    ]
    if not stopped:
        return None
    seed, made, why = stopped[0]
    where = f"after round {made}" if made else "before round 1, so the labels alone are compared with themselves"
    return f"{point['name']}: stopped early in {len(stopped)} of {len(seeds)} draws, with seed {seed} {where}: {why}."


def _names(names: Iterable[str]) -> str:
    """'100, 300 and 1000'; '' without any."""
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def law_note(one: dict[str, Any]) -> str | None:
    """The power law and its slope at the largest budget, None where there is no law."""
    if (fit := one["fit"]) is None:
        return None
    law = f"1 - AUROC = {fit['a']:.3f} + " if fit["floor_fitted"] else "1 - AUROC = "
    law += f"{fit['b']:.3g} n^{-fit['c']:.2f}"
    return f"Power law: {law}, n {one['unit']} a network. Its slope at the largest budget: {gain_numbers(one['slope'])} AUROC a doubling."


def _holds(miss: dict[str, Any]) -> str:
    if miss["low"] is None:
        return ""
    return ", no measurable difference" if miss["low"] <= 0 <= miss["high"] else ": the law does not hold there"


def comparison_sentences(curve: dict[str, Any]) -> list[str]:
    """Whether more slides help more than more patches of the same slides, or the command that would tell."""
    found = curve["patches_or_slides"]
    if found is None:
        if (command := curve["next_command"]) is None:
            both = len(curve["curves"]) > 1
            reason = "the two curves share no number of labels, or no seed" if both else "slides are split across folds"
            return [f"Whether more slides help more than more patches of the same slides cannot be told: {reason}."]
        return [f"Whether more slides or more patches of the same slides help more: `{command}` would tell."]
    mean, slides = found["mean"], next(iter(curve["curves"].values()))["groups"]
    numbers = f"{gain_numbers(mean)} AUROC, mean over {len(found['points'])} budgets, paired"
    if mean["low"] is None or mean["low"] <= 0 <= mean["high"]:
        return [
            f"Whether labels spread over all {slides} are worth more than as many labels of few {slides} cannot be told ({numbers})."
        ]
    if mean["low"] > 0:
        return [f"More {slides} help more: labels spread over all {slides} score above as many labels of few {slides} ({numbers})."]
    return [
        f"More patches of the same {slides} help more: labels of few {slides} score above as many spread over all {slides} ({numbers})."
    ]


def marks_of(curve: dict[str, Any]) -> list[str]:
    """Why the scores are too good, where they are."""
    if curve["scheme"] == "random":
        return ["Too good: cv.scheme random splits slides across folds."]
    return ["Too good (selected_on_fold): the epoch was chosen on the scored patches."] if curve["selected_on_fold"] else []


def amount(value: float | None) -> str:
    """'1,243', or with one decimal where it is small and not whole."""
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 and value != round(value) else count(round(value))
