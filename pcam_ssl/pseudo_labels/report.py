"""Sections on pseudo-label rounds from the values of rounds.json, for page and text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from statistics import fmean
from typing import Any

from pcam_ssl.pseudo_labels.pool_likeness import EXPECTED, drift_words, tumor_words
from pcam_ssl.pseudo_labels.verdict import SCORES
from pcam_ssl.render import document
from pcam_ssl.render.charts import Mark, dot_chart, spanning
from pcam_ssl.render.document import Details, Items, Paragraph, Preformatted, Section, Table
from pcam_ssl.render.format import gain_numbers, gain_word, interval, passes, three
from pcam_ssl.render.text import terminal
from pcam_ssl.runs.run import ROUNDS_FILE
from pcam_ssl.tables import CLASSES

NAMES = {
    "auroc": "AUROC",
    "nll": "NLL (lower is better)",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity_at_specificity_95": "sens. at 95 % spec.",
}
WIDTH = 100
NO_TRUTH = "no label of the pool is known"


def sections(verdict: dict[str, Any]) -> list[Section]:
    """The verdict and the next command, then the evidence for it."""
    made = len(verdict["rounds"]) > 1
    evidence = [learned(verdict), scores(verdict), control(verdict), truth(verdict), apart(verdict)] if made else []
    return [headline(verdict), *filter(None, [headroom(verdict)]), planted(verdict), *filter(None, evidence)]


def headline(verdict: dict[str, Any]) -> Section:
    """The verdict, why the rounds stopped, and the next command."""
    lines = [verdict["verdict"]]
    if (words := forecast_and_gain(verdict)) is not None:
        lines.append(words)
    if verdict["stopped"]:
        lines.append(f"Stopped: {verdict['stopped']}.")
    command = f"pcam-ssl predict {quote(verdict['best_folder'])} SOURCE --out FILE.parquet"
    return Section("Verdict", (*map(Paragraph, lines), Paragraph(f"Use round {verdict['best']}:"), Preformatted(command)))


def forecast_and_gain(verdict: dict[str, Any]) -> str | None:
    """The forecast beside what came: one sentence, None where no forecast or no round was made. Earlier versions have none."""
    ceiling, made = (verdict.get("headroom") or {}).get("ceiling"), len(verdict["rounds"]) > 1
    if ceiling is None or not made:
        return None
    own = verdict["chosen_by_fold"]
    came = "withheld, as all scores of pooled rounds" if own is None else gain_numbers(own["against_round_0"]["auroc"])
    return f"Forecast before the rounds: at most {gain_numbers(ceiling)} from knowing the pool; came: {came}."


def headroom(verdict: dict[str, Any]) -> Section | None:
    """The forecast that was made before the rounds; None without one."""
    forecast = verdict.get("headroom")
    if forecast is None:
        return None
    lines = forecast_sentences(forecast)
    if "likeness" in forecast:
        told = (drift_words(forecast["likeness"]), tumor_words(forecast["likeness"]))
        lines += [f"WARNING: {words}." for words in told if words is not None]
    return _section("Headroom: forecast before the rounds", lines)


def forecast_sentences(forecast: dict[str, Any]) -> list[str]:
    """The forecast in sentences: what a tuned head gains, what knowing the pool could bring, what can be seen, and what is in the pool."""
    if "likeness" not in forecast:
        return [f"No forecast: {forecast['reason']}."]
    lines, head, name = [], forecast["against_round_0"], forecast["features"]
    if head is not None and gain_word(head) == "a gain":
        # Earlier versions wrote no command.
        command = forecast.get("head_command", f"pcam-ssl baseline --recipe frozen --set model.name={name}")
        lines.append(
            f"A linear head on frozen {name}, fitted to the optimum on the same labels, gains {gain_numbers(head)} in AUROC over the run as it"
            f" is. Take that first: `{command}`."
        )
    labels, pool = f"{forecast['labels']:,.0f} labels", f"{forecast['pool']:,.0f} patches"
    if forecast["ceiling"] is None:
        lines.append(f"What knowing the pool could bring is not known: {forecast['reason']}.")
    else:
        lines.append(
            f"Heads on frozen {name}: {labels} a fold give AUROC {forecast['head']:.3f}. All true labels of the pool ({pool} a fold) would add"
            f" {gain_numbers(forecast['ceiling'])}, by a power law through smaller budgets. Rounds bring less."
        )
    if not forecast["own"]:
        lines.append("The run trains its backbone; what that gains from more labels may differ.")
    if forecast["resolvable"] is not None:
        lines.append(f"The scored slides show a change of {forecast['resolvable']:.3f} or more.")
    likeness = forecast["likeness"]
    of_pool = "not known, the head tells too little" if likeness["tumor"] is None else f"{likeness['tumor']:.0%}"
    share = f"Estimated share of tumor in the pool: {of_pool} (of the labels {likeness['tumor_in_labels']:.0%})."
    far = (
        ""
        if likeness["far"] is None
        else f" Far from every training patch: {likeness['far']:.0%} of it{_by_source(likeness)}, {EXPECTED:.0%} are expected."
    )
    return [*lines, share + far]


def _by_source(likeness: dict[str, Any]) -> str:
    """The shares of patches that lie far where the pool has several sources. Earlier versions kept none."""
    known = {name: share for name, share in likeness.get("far_by_source", {}).items() if share is not None}
    return f" ({', '.join(f'{name} {share:.0%}' for name, share in known.items())})" if len(known) > 1 else ""


def planted(verdict: dict[str, Any]) -> Section:
    """The pool, and the precision of the selection measured on labels hidden on purpose."""
    title, pool = "Pool and precision check", pool_sentence(verdict["pool"])
    check = verdict["planted"]
    if check is None:
        untested = "No precision check (pseudo.planted_share=0): the precision of this selection was not measured on hidden labels."
        return Section(title, (Paragraph(pool), Paragraph(untested)))
    n = len(check["folds"])
    hidden = f"Precision check in {n} fold{'s' if n > 1 else ''}: labels of whole training slides were hidden, and the same selection was run on these slides."
    sentences = [pool, hidden]
    if check["target"] is None:
        sentences.append("There is no target precision (pseudo.precision is null).")
    elif not any(entry["added"] for entry in check["classes"].values()):
        sentences.append(f"Target precision {check['target']:g}: not tested, because nothing was added.")
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
    return f"met, but the interval of {' and of '.join(unsure)} reaches below it" if unsure else "met"


def pool_sentence(pool: dict[str, float]) -> str:
    """Size of the pool, its sources, and how much of it is transductive; counts are means over folds."""
    sources = ", ".join(f"{pool[name]:,.0f} {name}" for name in ("test", "unlabelled", "hidden") if pool[name])
    text = f"Pool of a fold: {pool['patches']:,.0f} patches ({sources})"
    if pool["on_training_slides"]:
        text += f"; {pool['on_training_slides']:,.0f} on slides with training labels (transductive)"
    if pool["without_slide"]:
        text += f"; {pool['without_slide']:,.0f} of unknown slide"
    return f"{text}."


def learned(verdict: dict[str, Any]) -> Section:
    """The training labels of each round, and its inner scores."""
    head = ("round", "labels", "tumor", "normal", "new", "kept", "flipped", "taken back", "inner AUROC", "inner NLL")
    rows, notes = [], []
    for row in verdict["rounds"]:
        counts = row["added"] or {}
        cells = [f"{counts[name]:,}" if counts else "-" for name in ("tumor", "normal", "new", "kept", "flipped", "taken_back")]
        inner = [three(row["inner"][name]) for name in ("auroc", "nll")]
        rows.append((_name(row["number"], verdict), f"{row['labels_used']['mean']:,.0f}", *cells, *inner))
        notes += [*nothing_added(row), *_expected(row)]
    if any(row["inner"]["auroc"] is None for row in verdict["rounds"]):
        notes.append("- : inner slides hold one class only")
    n = len(verdict["rounds"])
    chosen = f"Round {_best(verdict)} was chosen among {n} (round 0 included) by the mean inner AUROC of the folds."
    if _best(verdict) != verdict["best"]:
        chosen += f" Round {verdict['best']} is in use: {verdict['why']}."
    if verdict["pooled"]:
        chosen = (
            f"Round {verdict['best']} is the last: the inner scores of pooled rounds are leaky, so no round was chosen by them."
        )
    summed = "Labels: mean of folds. Pseudo-labels: summed over folds, so a patch counts once for each fold that trains on it."
    return _section("Training labels by round", [chosen], Table(head, rows), [summed, *notes])


def nothing_added(row: dict[str, Any]) -> list[str]:
    """The number of folds in which a class has no threshold, or nothing was added."""
    facts, lines = row["facts"] or [], []
    for name in reversed(CLASSES):
        unproven = [fact for fact in facts if fact["thresholds"] and fact["thresholds"][name]["prob"] is None]
        if unproven:
            lines.append(
                f"round {row['number']}: in {len(unproven)} of {len(facts)} folds no threshold proves the precision for {name}"
            )
    empty = [fact["nothing"] for fact in facts if fact["nothing"]]
    if empty:
        lines.append(f"round {row['number']}: in {len(empty)} of {len(facts)} folds {empty[0]}")
    return lines


def _expected(row: dict[str, Any]) -> list[str]:
    """The share of tumor that a round expects in the pool, and the weights of its opinions; means over folds."""
    facts, lines = row["facts"] or [], []
    told = [fact for fact in facts if fact.get("labelled_share") is not None and fact["prior"] is not None]
    if told:
        pool, labels = (fmean(fact[key] for fact in told) for key in ("prior", "labelled_share"))
        lines.append(f"round {row['number']}: tumor share of the pool, as expected: {pool:.3f}; of the labels: {labels:.3f}")
    mixes = [fact["opinions"] for fact in facts if fact.get("opinions")]
    if mixes:
        weights = {name: fmean(mix["weights"][name] for mix in mixes) for name in mixes[0]["weights"]}
        lines.append(
            f"round {row['number']}: weights of the opinions: {', '.join(f'{name} {weight:.2f}' for name, weight in weights.items())}"
        )
    return lines


def scores(verdict: dict[str, Any]) -> Section:
    """Out-of-fold scores by round, each with its paired difference to round 0, and those of the round that each fold chose on its inner slides."""
    title, chosen = "Out-of-fold scores", verdict["chosen_by_fold"]
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
        f"own: for each fold, the round chosen on its own inner slides ({picked}); no scored label influenced that choice. Quote this row"
    ]
    if any(fact["nothing"] for row in verdict["rounds"] for fact in row["facts"] or []):
        notes.append("own leaves out rounds that added nothing to the fold: such a student differs from round 0 only by its seed")
    if len(chosen["rounds"]) > 1:
        notes.append("best: chosen by the inner slides of all folds, which other folds score; so quote 'own', not 'best'")
    if verdict.get("decided_by_scores"):
        notes.append("whether best is used was decided by these scores, so its own score is a little too good: quote 'own'")
    notes.append(
        f"intervals: 95 % bootstrap, {verdict['unit']}s resampled. They do not cover the seed: training with another seed also changes"
        " the scores, so confirm a gain with several seeds"
    )
    notes += reasons(
        row[part][score] for _, row in entries for part in ("out_of_fold", "against_round_0") if row[part] for score in SCORES
    )
    head = ("score", "round", "95 % interval", "against round 0, paired", "")
    return _section(title, [], Table(head, rows, align="lllll"), notes)


def control(verdict: dict[str, Any]) -> Section | None:
    """AUROC of each round beside what it cost, against round 0 and against the control. None for pooled rounds, and of earlier versions."""
    if verdict["pooled"] or "control" not in verdict:
        return None
    told, chosen = verdict["control"], verdict["chosen_by_fold"]
    entries = [(_name(row["number"], verdict), row) for row in verdict["rounds"]]
    teachers = verdict.get("teachers")
    entries.append(("own", {**chosen, "cost": _cost_of_all([*verdict["rounds"], *([teachers] if teachers else [])])}))
    if told and not told["is_round_0"]:
        entries.append(("control", told))
    rows = []
    for name, row in entries:
        gains = (row.get(f"against_{other}") for other in ("round_0", "control"))
        numbers = (gain_numbers(gain["auroc"]) if gain else "" for gain in gains)
        rows.append((name, passes(row["cost"]), interval(row["out_of_fold"]["auroc"]), *numbers))
    head = ("round", "patch passes", "AUROC, 95 % interval", "against round 0, paired", "against the control")
    words = [_control_words(told)]
    if teachers:
        against = gain_numbers(teachers["against_round_0"]["auroc"])
        words.append(
            f"Round 1 was taught by the mean of {teachers['n']} networks of other seeds ({passes(teachers['cost'])} patch passes for the further ones),"
            f" whose own AUROC is {against} against round 0."
        )
    counted = "patch passes: views of training patches pushed forward, summed over folds; own: over all rounds and teachers. cached: heads on features computed once"
    return _section("Cost and control", words, Table(head, rows, align="lrlll"), [counted])


def _control_words(told: dict[str, Any] | None) -> str:
    if told is None:
        return (
            "No control was trained (pseudo.control=false): whether longer training on the labels alone does the same is not known."
        )
    if told["is_round_0"]:
        return "The control is round 0 itself: heads fitted to the optimum on the same labels would be the same heads."
    as_long = (
        "fitted to the optimum"
        if told["steps"] is None
        else f"as many steps and the same seed as the students of round {told['of_round']}"
    )
    return f"Control: the students' training on the labels alone, {as_long}."


def _cost_of_all(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What round 0 and all rounds cost together; None where one does not tell."""
    costs = [row["cost"] for row in rows]
    if not all(costs):
        return None
    known = [cost["patch_passes"] for cost in costs]
    return {"patch_passes": None if None in known else sum(known), "cached": all(cost["cached"] for cost in costs)}


def truth(verdict: dict[str, Any]) -> Section:
    """Precision and coverage of the pseudo-labels, where the true labels are known."""
    title, rows, found = "Precision and coverage of the pseudo-labels", [], []
    for row in verdict["rounds"][1:]:
        known = row["truth"]
        for name in reversed(CLASSES):
            shares = known["precision"][name], known["coverage"][name]
            promised = three(known.get("predicted", {}).get(name))
            counts = (f"{share['n']:,}" for share in shares)
            rows.append((f"{row['number']}", name, interval(shares[0]), promised, interval(shares[1]), *counts))
            found += shares
    if not any(row["truth"]["known"] for row in verdict["rounds"][1:]):
        return _section(title, [f"Not known: {NO_TRUTH}."])
    head = ("round", "class", "precision", "predicted", "coverage", "added", "of pool")
    notes = (
        "measured on the pool's patches whose label is known; no choice used these labels",
        "predicted: the precision that the calibrated probs promised",
        *_slides_unknown(verdict),
        *reasons(found),
    )
    return _section(title, [], Table(head, rows, align="llrrrrr"), notes)


def apart(verdict: dict[str, Any]) -> Section:
    """AUROC on slides that were never in the pool, beside AUROC on the pool."""
    rows, notes = [], []
    for row in verdict["rounds"]:
        outside, report = row["out_of_fold"]["auroc"], row["transductive"]
        inside = report["scores"]["auroc"] if report else {"value": None, "low": None, "high": None, "reason": NO_TRUTH}
        n = f"{report['n']:,}" if report else "-"
        rows.append((_name(row["number"], verdict), interval(outside), interval(inside), n))
        notes += reasons([outside, inside])
    notes += _slides_unknown(verdict)
    terms = "Inductive: slides that were never in the pool of the network that scores them. Transductive: the pool, where labels are known."
    head = ("round", "inductive", "transductive", "pool patches")
    return _section("Inductive and transductive AUROC", [terms], Table(head, rows, align="lllr"), list(dict.fromkeys(notes)))


def _slides_unknown(verdict: dict[str, Any]) -> list[str]:
    """A note where patches stand for slides in the intervals of the pool, which out of fold stain clusters do."""
    report = verdict["rounds"][0]["transductive"]
    if not report or report.get("n_slides", 1) is not None:
        return []
    return ["the pool's slides are unknown, so its intervals resample patches: they are too narrow where patches share a slide"]


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
    return f"{round_number} {mark}" if round_number == _best(verdict) else str(round_number)


def _best(verdict: dict[str, Any]) -> int:
    """The best round on inner slides, which is not in use where it gains nothing. Earlier versions always used it."""
    return verdict.get("best_inner", verdict["best"])


def rounds_text(verdict: dict[str, Any]) -> str:
    """Plain text, 100 columns where words allow, the same in a pipe. `verdict` is what rounds.json holds.

    The verdict comes last: a terminal shows the end of what is printed.
    """
    first, *others = sections(verdict)
    return terminal((*others, first), WIDTH)


def rounds_section(rounds: dict[Path, dict[str, Any]], pooled: bool = False) -> Section | None:
    """The verdict and the gains as a chart; the evidence is folded. `rounds`: verdicts by the folder of their rounds.json.

    None where there are none of the kind, `pooled` or not, but some of the other.
    """
    if not rounds and not pooled:
        return Section(absent="the run has no rounds; `pcam-ssl pseudo-label RUN` makes them and updates this page")
    found = {folder: verdict for folder, verdict in rounds.items() if verdict["pooled"] == pooled}
    blocks = [block for folder, verdict in found.items() for block in _blocks(folder, verdict)]
    return Section(blocks=blocks) if blocks else None


def _blocks(folder: Path, verdict: dict[str, Any]) -> list[document.Block | None]:
    first, *others = sections(verdict)
    folded = [Details(section.title, section.blocks) for section in others]
    return [*first.blocks, _gains(verdict), *folded, Paragraph(f"From {folder / ROUNDS_FILE}.", "note")]


def _gains(verdict: dict[str, Any]) -> document.Chart | None:
    """Paired difference in AUROC of each round to round 0; None where no round has one."""
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
    axis = spanning("difference in out-of-fold AUROC to round 0", [0.0, *ends])
    alt = "Gain in AUROC over round 0 with its paired 95 % interval; zero is no gain. " + "; ".join(m.title for _, (m,) in rows)
    return dot_chart(rows, axis, alt, reference=0.0)
