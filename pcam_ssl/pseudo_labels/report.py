"""Sections on pseudo-label rounds, from the dict of rounds.json, as page and text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pcam_ssl.pseudo_labels.verdict import SCORES
from pcam_ssl.render import document
from pcam_ssl.render.charts import Mark, dot_chart, spanning
from pcam_ssl.render.document import Details, Items, Paragraph, Preformatted, Section, Table
from pcam_ssl.render.format import gain_numbers, gain_word, interval, three
from pcam_ssl.render.text import terminal
from pcam_ssl.runs.run import ROUNDS_FILE

NAMES = {
    "auroc": "AUROC",
    "nll": "NLL (less is better)",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity_at_specificity_95": "sens. at 95 % spec.",
}
WIDTH = 100
CLASSES = ("tumor", "normal")
NO_TRUTH = "no label of the pool is known"


def sections(verdict: dict[str, Any]) -> list[Section]:
    """The verdict, what to do next, then what it rests on."""
    made = len(verdict["rounds"]) > 1
    bookkeeping = [learned(verdict), scores(verdict), truth(verdict), apart(verdict)] if made else []
    return [headline(verdict), planted(verdict), *bookkeeping]


def headline(verdict: dict[str, Any]) -> Section:
    """The sentence, why it ended, and the command to use next."""
    lines = [verdict["verdict"]]
    if verdict["stopped"]:
        lines.append(f"Stopped: {verdict['stopped']}.")
    command = f"pcam-ssl predict {verdict['best_folder']} SOURCE --out FILE.parquet"
    return Section(
        "Verdict", (*map(Paragraph, lines), Paragraph(f"Use round {verdict['best']} from here on:"), Preformatted(command))
    )


def planted(verdict: dict[str, Any]) -> Section:
    """What the user may expect of the pool, from labels hidden on purpose."""
    title, pool = "What to expect of the pool", pool_sentence(verdict["pool"])
    check = verdict["planted"]
    if check is None:
        untested = "No planted check (pseudo.planted_share=0): how right this selection is here was not tested before."
        return Section(title, (Paragraph(pool), Paragraph(untested)))
    n = len(check["folds"])
    told = f"Planted check in {n} fold{'s' if n > 1 else ''}: labels of whole training slides were hidden, and the same selection run on them."
    sentences = [pool, told]
    if check["target"] is None:
        sentences.append("No precision is asked for (pseudo.precision is null), so there is none to miss.")
    elif not any(entry["added"] for entry in check["classes"].values()):
        sentences.append(f"Target precision {check['target']:g}: not tested, for nothing was added.")
    else:
        sentences.append(f"Target precision {check['target']:g}: {_met(check)}.")
    rows = [
        (name, interval(entry["precision"]), interval(entry["coverage"]), f"{entry['added']:,}", f"{entry['of']:,}")
        for name, entry in check["classes"].items()
    ]
    shares = [entry[kind] for entry in check["classes"].values() for kind in ("precision", "coverage")]
    table = Table(("class", "precision", "coverage", "added", "of hidden"), rows)
    return _section(title, sentences, table, reasons(shares))


def _met(check: dict[str, Any]) -> str:
    if not check["met"]:
        return f"MISSED: {check['reason']}"
    lows = {name: entry["precision"]["low"] for name, entry in check["classes"].items()}
    unsure = [name for name, low in lows.items() if low is not None and low < check["target"]]
    return f"met, though the interval of {' and of '.join(unsure)} reaches below it" if unsure else "met"


def pool_sentence(pool: dict[str, float]) -> str:
    """How large the pool is, where it comes from, and what of it is transductive; counts are means over folds."""
    sources = ", ".join(f"{pool[name]:,.0f} {name}" for name in ("test", "unlabelled", "hidden") if pool[name])
    text = f"Pool of a fold: {pool['patches']:,.0f} patches ({sources})"
    if pool["on_training_slides"]:
        text += f"; {pool['on_training_slides']:,.0f} on slides with training labels (transductive)"
    if pool["without_slide"]:
        text += f"; {pool['without_slide']:,.0f} of unknown slide"
    return f"{text}."


def learned(verdict: dict[str, Any]) -> Section:
    """What each round learned from, and its inner scores."""
    head = ("round", "labels", "tumor", "normal", "new", "kept", "flipped", "taken back", "inner AUROC", "inner NLL")
    rows, notes = [], []
    for row in verdict["rounds"]:
        counts = row["added"] or {}
        cells = [f"{counts[name]:,}" if counts else "-" for name in ("tumor", "normal", "new", "kept", "flipped", "taken_back")]
        inner = [three(row["inner"][name]) for name in ("auroc", "nll")]
        rows.append((_name(row["number"], verdict), f"{row['labels_used']['mean']:,.0f}", *cells, *inner))
        notes += nothing_added(row)
    if any(row["inner"]["auroc"] is None for row in verdict["rounds"]):
        notes.append("- : inner slides hold one class only")
    n = len(verdict["rounds"])
    chosen = f"Round {verdict['best']} was chosen among {n} (round 0 included) by the mean inner AUROC of the folds."
    if verdict["pooled"]:
        chosen = f"Round {verdict['best']} is the last: no inner score of pooled rounds is clean enough to choose by."
    summed = "Labels: mean of folds. Pseudo-labels: summed over folds, so a patch counts once in each fold that learns from it."
    return _section("What each round learned from", [chosen], Table(head, rows), [summed, *notes])


def nothing_added(row: dict[str, Any]) -> list[str]:
    """In how many folds a class has no threshold, or nothing was added."""
    facts, lines = row["facts"] or [], []
    for name in CLASSES:
        unproven = [fact for fact in facts if fact["thresholds"] and fact["thresholds"][name]["prob"] is None]
        if unproven:
            lines.append(
                f"round {row['number']}: in {len(unproven)} of {len(facts)} folds no threshold proves the precision for {name}"
            )
    empty = [fact["nothing"] for fact in facts if fact["nothing"]]
    if empty:
        lines.append(f"round {row['number']}: in {len(empty)} of {len(facts)} folds {empty[0]}")
    return lines


def scores(verdict: dict[str, Any]) -> Section:
    """Out-of-fold scores by round, each with its paired difference to round 0, and those of each fold's own choice."""
    title, chosen = "Out of fold", verdict["chosen_by_fold"]
    if verdict["pooled"]:
        return _section(title, [f"{_reason(verdict['rounds'][-1]['out_of_fold']['auroc'])}."])
    entries = [(_name(row["number"], verdict), row) for row in verdict["rounds"]] + [("own", chosen)]
    rows = []
    for score in SCORES:
        for place, (name, row) in enumerate(entries):
            against = row["against_round_0"]
            gain = ("", "") if against is None else (gain_numbers(against[score]), gain_word(against[score], score == "nll"))
            rows.append(("" if place else NAMES[score], name, interval(row["out_of_fold"][score]), *gain))
    picked = ", ".join(f"fold {fold} round {number}" for fold, number in chosen["rounds"].items())
    notes = [
        f"own: each fold scored by the round that its own inner slides like best ({picked}): no label it is scored on had a say"
    ]
    if any(fact["nothing"] for row in verdict["rounds"] for fact in row["facts"] or []):
        notes.append(
            "own leaves out rounds that added nothing to the fold: such a student differs from round 0 by its seed, not by what it learned"
        )
    if len(chosen["rounds"]) > 1:
        notes.append(
            "single rounds: which is best was asked of all folds' inner slides, which other folds score; believe 'own' before 'best'"
        )
    notes.append(
        f"intervals: 95 % bootstrap, {verdict['unit']}s resampled. They hold no other seeds: training anew moves scores too,"
        " so see a gain under several seeds before you believe it"
    )
    notes += reasons(
        row[part][score] for _, row in entries for part in ("out_of_fold", "against_round_0") if row[part] for score in SCORES
    )
    head = ("score", "round", "95 % interval", "against round 0, paired", "")
    return _section(title, [], Table(head, rows, align="lllll"), notes)


def truth(verdict: dict[str, Any]) -> Section:
    """How right the pseudo-labels were, where the truth is known."""
    title, rows, found = "Were the pseudo-labels right?", [], []
    for row in verdict["rounds"][1:]:
        known = row["truth"]
        for name in CLASSES:
            shares = known["precision"][name], known["coverage"][name]
            rows.append((f"{row['number']}", name, *map(interval, shares), *(f"{share['n']:,}" for share in shares)))
            found += shares
    if not any(row["truth"]["known"] for row in verdict["rounds"][1:]):
        return _section(title, [f"Not known: {NO_TRUTH}."])
    head = ("round", "class", "precision", "coverage", "added", "of pool")
    notes = ("over the pool's patches of known label; no choice was made by them", *reasons(found))
    return _section(title, [], Table(head, rows, align="llrrrr"), notes)


def apart(verdict: dict[str, Any]) -> Section:
    """AUROC of slides never in the pool beside that of the pool itself."""
    rows, notes = [], []
    for row in verdict["rounds"]:
        outside, report = row["out_of_fold"]["auroc"], row["transductive"]
        inside = report["scores"]["auroc"] if report else {"value": None, "low": None, "high": None, "reason": NO_TRUTH}
        n = f"{report['n']:,}" if report else "-"
        rows.append((_name(row["number"], verdict), interval(outside), interval(inside), n))
        notes += reasons([outside, inside])
    told = "Inductive: slides that were never in the pool of the network that scores them. Transductive: the pool, where labels are known."
    head = ("round", "inductive", "transductive", "pool patches")
    return _section("AUROC inductive and transductive, apart", [told], Table(head, rows, align="lllr"), list(dict.fromkeys(notes)))


def _section(title: str, sentences: list[str], table: Table | None = None, notes: Sequence[str] = ()) -> Section:
    return Section(title, (*map(Paragraph, sentences), table, Items(notes, "note")))


def reasons(scores: Iterable[dict[str, Any]]) -> list[str]:
    """Why a score is a dash or has no interval, each reason once."""
    without = [score for score in scores if score["value"] is None or score["low"] is None]
    return list(
        dict.fromkeys(f"- : {_reason(score)}" if score["value"] is None else f"no interval: {_reason(score)}" for score in without)
    )


def _reason(score: dict[str, Any]) -> str:
    return score.get("reason", "not defined")


def _name(round_number: int, verdict: dict[str, Any]) -> str:
    mark = "last" if verdict["pooled"] else "best"
    return f"{round_number} {mark}" if round_number == verdict["best"] else str(round_number)


def rounds_text(verdict: dict[str, Any]) -> str:
    """Plain text, 100 columns where words allow, the same in a pipe. `verdict` is what rounds.json holds.

    The verdict comes last: a terminal shows the end of what is printed.
    """
    first, *others = sections(verdict)
    return terminal((*others, first), WIDTH)


def rounds_section(rounds: dict[Path, dict[str, Any]], pooled: bool = False) -> Section | None:
    """The verdict and the gains as a chart; what they rest on opens on request. `rounds`: verdicts by the folder of their rounds.json.

    None where there are none of the kind, `pooled` or not, but some of the other.
    """
    if not rounds and not pooled:
        return Section(absent="none were made; `pcam-ssl pseudo-label RUN` makes them, and this page again")
    found = {folder: verdict for folder, verdict in rounds.items() if verdict["pooled"] == pooled}
    blocks = [block for folder, verdict in found.items() for block in _blocks(folder, verdict)]
    return Section(blocks=blocks) if blocks else None


def _blocks(folder: Path, verdict: dict[str, Any]) -> list[document.Block | None]:
    first, *others = sections(verdict)
    folded = [Details(section.title, section.blocks) for section in others]
    return [*first.blocks, _gains(verdict), *folded, Paragraph(f"From {folder / ROUNDS_FILE}.", "note")]


def _gains(verdict: dict[str, Any]) -> document.Chart | None:
    """AUROC of each round less that of round 0, paired; nothing where no round was made or has one."""
    if len(verdict["rounds"]) < 2:
        return None
    entries = [(f"round {row['number']}", row["against_round_0"]) for row in verdict["rounds"]]
    if verdict["chosen_by_fold"]:
        entries.append(("each fold's own choice", verdict["chosen_by_fold"]["against_round_0"]))
    known = [(name, gains["auroc"]) for name, gains in entries if gains and gains["auroc"]["value"] is not None]
    if not known:
        return None
    rows = []
    for name, gain in known:
        rows.append((name, [Mark(gain["value"], "c1", f"{name}: {gain_numbers(gain)}", gain["low"], gain["high"])]))
    ends = [gain[end] for _, gain in known for end in ("value", "low", "high")]
    axis = spanning("AUROC out of fold, less that of round 0", [0.0, *ends])
    alt = "Gain in AUROC over round 0 with its paired 95 % interval; zero is no gain. " + "; ".join(m.title for _, (m,) in rows)
    return dot_chart(rows, axis, alt, reference=0.0)
