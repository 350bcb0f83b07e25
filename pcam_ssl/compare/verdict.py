"""The sentences of a comparison, shared by text and page."""

from typing import Any

from pcam_ssl.render.format import gain_numbers, gain_word, scored_words

MARK = "*"


def title(comparison: dict[str, Any]) -> str:
    """'3 runs on the same 1,243 patches (446 tumor) of 34 slides, 3 folds grouped by slides'."""
    return f"{len(comparison['runs'])} runs on the same {scored_words(comparison)}"


def verdict(comparison: dict[str, Any], numbers: bool = True) -> str:
    """Which recipes differ measurably from the first in out-of-fold AUROC, and which do not; `numbers` adds the differences.

    Means over seeds are compared where recipes were run with several seeds, else single runs; the last sentence says which.
    """
    first, others = compared(comparison)[0], compared(comparison)[1:]
    if first["scores"]["auroc"]["value"] is None:
        return "There is no AUROC: the scored patches hold one class only."
    named: dict[str, list[str]] = {"a gain": [], "a loss": [], "no measurable gain": [], "gain not known": []}
    for other in others:
        gap = other["against_first"]["auroc"]
        word = gain_word(gap)
        named[word].append(f"{other['name']} {gain_numbers(gap)}" if numbers and gap["low"] is not None else other["name"])
    sentences = [
        f"{opening} {first['name']}: {', '.join(named[word])}."
        for word, opening in (
            ("a gain", "Measurably better than"),
            ("a loss", "Measurably worse than"),
            ("no measurable gain", "Not distinguishable from"),
            ("gain not known", "No interval for the difference to"),
        )
        if named[word]
    ]
    return " ".join([*sentences, _of_seeds(comparison)])


def compared(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """What is compared: recipes over their seeds where any has several, else runs. Each has "name", "scores", "against_first"."""
    return comparison["groups"] or comparison["runs"]


def seeds_counted(comparison: dict[str, Any]) -> bool:
    """Whether the interval of every difference covers the spread over seeds."""
    groups = comparison["groups"]
    return groups is not None and all(len(group["seeds"]) > 1 for group in groups)


def _of_seeds(comparison: dict[str, Any]) -> str:
    """Whether the seed may explain the differences."""
    groups = comparison["groups"]
    if groups is None:
        return "One seed each: another seed also changes the scores, so the seed may explain a difference."
    if len(groups) == 1:
        return f"One recipe with {len(groups[0]['seeds'])} seeds: AUROC {spread_text(groups[0]['scores']['auroc'])}; its runs differ only in the seed."
    alone = [group["name"] for group in groups if len(group["seeds"]) == 1]
    if not alone:
        return "Means over seeds; the intervals cover the spread over slides and over seeds."
    return f"One seed only, so the seed may explain the difference: {', '.join(alone)}."


def spread_text(score: dict[str, Any]) -> str:
    """'0.873 on average, 0.861 to 0.881 over seeds (sd 0.010)'; of one seed its value, and a dash where the score is not defined."""
    if score["value"] is None:
        return "-"
    if score["sd"] is None:
        return f"{score['value']:.3f}, one seed"
    return f"{score['value']:.3f} on average, {score['min']:.3f} to {score['max']:.3f} over seeds (sd {score['sd']:.3f})"


def over_seeds(comparison: dict[str, Any]) -> list[list[str]]:
    """A row for each recipe: name, seeds, AUROC over them, its difference to the first, and whether that is a gain."""
    rows = []
    for group in comparison["groups"]:
        gap = group["against_first"] and group["against_first"]["auroc"]
        difference = [gain_numbers(gap), gain_word(gap)] if gap else ["", ""]
        rows.append([group["name"], ", ".join(map(str, group["seeds"])), spread_text(group["scores"]["auroc"]), *difference])
    return rows


def run_word(run: dict[str, Any], comparison: dict[str, Any]) -> str:
    """Whether the difference of one run to the first is a gain; where recipes are compared over seeds, one run does not show it."""
    if run["against_first"] is None:
        return ""
    if comparison["groups"] is None:
        return gain_word(run["against_first"]["auroc"])
    return "seed only" if run["name"] in comparison["groups"][0]["runs"] else "see mean over seeds"


def remarks(comparison: dict[str, Any]) -> list[str]:
    """Further warnings: marks of runs, those of all runs once, the choice among several runs, and different devices."""
    runs = comparison["runs"]
    shared = [mark for mark in runs[0]["marks"] if all(mark in run["marks"] for run in runs)]
    lines = [f"All runs: {mark}." for mark in shared]
    lines += [f"{run['name']}: {mark}." for run in runs for mark in run["marks"] if mark not in shared]
    n, kind = len(compared(comparison)), "runs" if comparison["groups"] is None else "recipes"
    if n > 2:
        lines.append(
            f"The best of {n} {kind} is chosen on the scored patches, so its score is a little too good. Each interval covers"
            " one difference, not all of them together."
        )
    if len({run["device"] for run in runs if run["device"]}) > 1:
        lines.append("Patches per second were measured on different devices, so they do not compare the networks.")
    return lines


def name_of(run: dict[str, Any], comparison: dict[str, Any]) -> str:
    """The run's name, marked where its scores are too good, or transductive."""
    too_good = run["selected_on_fold"] or comparison["scheme"] == "random"
    name = f"{run['name']}, transductive" if run.get("transductive") else run["name"]
    return f"{name} {MARK}" if too_good else name


def marked_note(comparison: dict[str, Any]) -> str | None:
    """The meaning of the mark after a name, None where no run has it."""
    if comparison["scheme"] == "random":
        return f"{MARK} too good: slides are split across folds, so each network was trained on slides that it is scored on"
    if any(run["selected_on_fold"] for run in comparison["runs"]):
        return f"{MARK} too good (selected_on_fold): the epoch was chosen on the scored patches"
    return None


def split_note(run: dict[str, Any], split: str) -> str:
    """'test', or 'test, transductive' where the run's networks learned from scored patches of it."""
    return f"{split}, transductive" if run["in_pool"].get(split) else split


def short_count(n: int | None) -> str:
    """'21.3 M', '372 k', or '-'."""
    if n is None:
        return "-"
    return f"{n / 1e6:,.1f} M" if n >= 1e6 else f"{n / 1e3:,.0f} k" if n >= 1e3 else str(n)


def epochs_text(run: dict[str, Any]) -> str:
    """'10', '10 (kept 4 to 9)', or '-'."""
    if run["epochs"] is None:
        return "-"
    kept = run["kept"]
    if kept is None or kept == [run["epochs"]] * 2:
        return str(run["epochs"])
    return f"{run['epochs']} (kept {kept[0]})" if kept[0] == kept[1] else f"{run['epochs']} (kept {kept[0]} to {kept[1]})"


def rate_text(run: dict[str, Any]) -> str:
    """Patches per second, or '-'."""
    return "-" if run["patches_per_s"] is None else f"{run['patches_per_s']:,.0f}"
