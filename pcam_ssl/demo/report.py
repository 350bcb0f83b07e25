"""What a tour found: scores that runs promise beside those that held-out slides keep, as one screen of text and as statements."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.api import bootstrap_intervals
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.evaluation.bootstrap import resampled_auroc
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.render.document import Table
from pcam_ssl.render.format import gain_numbers, gain_word, interval
from pcam_ssl.render.html import shorten
from pcam_ssl.render.text import aligned, wrap
from pcam_ssl.results import RoundsVerdict
from pcam_ssl.runs.run import DECISIONS, Run
from pcam_ssl.tables import DECISION_COLUMNS, read_predictions, read_table

WIDTH = 80
RESAMPLES = 500
FEW = 20
"""With fewer held-out slides than this, what they keep says little."""


@dataclass(frozen=True)
class Tour:
    """The runs of a tour: `verdict` is that of the round on `start`, `page` that of neighbours, `title` names the patches."""

    dataset: Dataset
    grouped: Run
    random: Run
    metric: Run
    start: Run
    verdict: RoundsVerdict
    page: Path
    title: str


@dataclass(frozen=True)
class Row:
    """Out-of-fold AUROC (`promised`) and the mean over folds of the AUROC on held-out slides (`kept`; None without such), with intervals."""

    name: str
    promised: dict[str, Any]
    kept: dict[str, Any] | None

    @property
    def within(self) -> bool | None:
        """Whether the kept score lies in the interval of the promise; None where one of them is unknown."""
        if self.kept is None or self.promised["low"] is None:
            return None
        return self.promised["low"] <= self.kept["value"] <= self.promised["high"]


@dataclass(frozen=True)
class Added:
    """The pseudo-labels of the round: different patches, precision of those with a known label, and the paired gain in AUROC.

    `all_known`: whether every label is known, as on synthetic slides.
    """

    patches: int
    precision: dict[str, Any]
    all_known: bool
    gain: dict[str, Any]


def rows(tour: Tour) -> dict[str, Row]:
    """The lines of the table by key: random, grouped, colour, head and knn of the metric run, start (where not grouped), round (where made)."""
    made = {
        "random": Row("random folds (leaky)", _promised(tour.random), kept(tour.random.test)),
        "grouped": Row("grouped folds", _promised(tour.grouped), kept(tour.grouped.test)),
        "head": Row("metric learning, head", _promised(tour.metric), kept(tour.metric.test)),
        "knn": Row("metric learning, kNN", _of_neighbours(tour.metric), kept(_table(tour.metric, "test-knn"))),
    }
    if tour.start.path != tour.grouped.path:
        budget = tour.start.recipe.data.label_budget
        made["start"] = Row(f"grouped folds, {budget} labels", _promised(tour.start), kept(tour.start.test))
    if len(tour.verdict["rounds"]) > 1:
        promised = tour.verdict["rounds"][1]["out_of_fold"]["auroc"]
        # Its networks learned from the held-out slides, without their labels: what they score there is no promise for new slides.
        made["round"] = Row("after a round of pseudo-labels", promised, None)
    if (floor := tour.grouped.scores.file["floor"]) is not None:
        made["colour"] = Row("colour alone", floor["scores"]["auroc"], None)
    return made


def kept(test: pd.DataFrame | None) -> dict[str, Any] | None:
    """Mean over folds of the AUROC of each fold's network on labelled test patches, with an interval from resampled slides.

    Out-of-fold scores estimate this, and not the score of the folds' mean. None where no test patch has a label, or all have the same.
    """
    if test is None or test.label.isna().all():
        return None
    known = test[test.label.notna() & (test.fold >= 0)]
    parts = [part.sort_values("id") for _, part in known.groupby("fold")]
    labels, probs = parts[0].label.to_numpy(np.int64), [part.prob.to_numpy() for part in parts]
    if len(set(labels)) < 2:
        return None
    known = parts[0].wsi.notna().to_numpy()
    slides = parts[0].wsi[known]
    drawn = resampled_auroc(labels[known], [each[known] for each in probs], slides, RESAMPLES).mean(axis=0)
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (None, None)
    value = float(np.mean([auroc(labels, each) for each in probs]))
    return {"value": value, "low": low, "high": high, "slides": slides.nunique()}


def added(tour: Tour) -> Added | None:
    """What the round added; None where none was made."""
    if len(tour.verdict["rounds"]) < 2:
        return None
    entry = tour.verdict["rounds"][1]
    decisions, _ = read_table(tour.verdict.runs[1].path / DECISIONS, DECISION_COLUMNS)
    chosen = decisions[decisions.decision == "added"]
    all_known = entry["truth"]["added"] == len(chosen)
    return Added(chosen.id.nunique(), entry["truth"]["precision"]["all"], all_known, entry["against_round_0"]["auroc"])


def statements(tour: Tour) -> dict[str, bool]:
    """The statements of the demo, and whether each holds on these slides."""
    table, of_round = rows(tour), added(tour)
    random = table["random"]
    head, near = tour.grouped.oof, tour.metric.table("knn").oof
    near = near.set_index("id").loc[head.id]
    against = bootstrap_intervals(head.label.astype(int), near.prob, head.wsi, against=head.prob)["auroc"]
    loss = against.high is not None and against.high < 0
    return {
        "leak": random.kept is not None and random.kept["value"] < random.promised["value"],
        "leak beyond the interval": random.within is False and random.kept["value"] < random.promised["low"],
        "grouped": table["grouped"].within is True,
        "neighbours": not loss,
        "round": of_round is not None and of_round.patches >= 200 and (of_round.gain["low"] or 0) > 0,
    }


def tour_text(tour: Tour) -> str:
    """One screen: the table, a sentence each on leak, search and round, and what to open."""
    table = rows(tour)
    held_out = table["grouped"].kept is not None
    columns = ["promised out of fold", *(["kept on new slides"] if held_out else [])]
    head = [f"AUROC, {shorten(tour.title, 24)}", *columns]
    cells = [[row.name, interval(row.promised), *([_of(row.kept)] if held_out else [])] for row in table.values()]
    text = [aligned(Table(head, cells, align="lll"[: len(head)]))]
    for name, sentence in (("Leak", leak(table)), ("Search", searched(tour)), ("Round", round_words(tour))):
        text.append("\n".join(wrap(f"{name}: {sentence}", WIDTH)))
    made = tour.verdict.runs[-1] if len(tour.verdict["rounds"]) > 1 else None
    pages = [tour.grouped.path / "report.html", tour.page, *([made.path / "report.html"] if made else [])]
    notes = ["whether the score can be trusted", "patches beside their neighbours", "the round, patch by patch"]
    text.append(aligned(Table([], [[f"open {page}", note] for page, note in zip(pages, notes, strict=False)], align="ll")))
    return "\n\n".join(text)


def leak(table: dict[str, Row]) -> str:
    """How far random folds promised too much, and whether grouped folds kept their promise."""
    random, grouped = table["random"], table["grouped"]
    if random.kept is None or grouped.kept is None:
        over = random.promised["value"] - grouped.promised["value"]
        return f"random folds promise {over:+.3f} against grouped folds. No slides are held out, so neither promise is tested here."
    n = grouped.kept["slides"]
    if n < FEW:
        promises = f"random folds, which split slides, promise {random.promised['value']:.3f}; grouped folds {grouped.promised['value']:.3f} on the same patches."
        return f"{promises} {n} held-out slides are too few to test either promise."
    told = [
        f"{name} promise {row.promised['value']:.3f} and keep {row.kept['value']:.3f} on {n} new slides, {_place(row)}"
        for name, row in (("random folds, which split slides,", random), ("grouped folds", grouped))
    ]
    return f"{told[0]}; {told[1]}."


def _place(row: Row) -> str:
    if row.within is None:
        return "without an interval"
    if row.within:
        return "inside their interval"
    return f"{'below' if row.kept['value'] < row.promised['low'] else 'above'} their interval"


def searched(tour: Tour) -> str:
    """How often the nearest patch of another slide has the label of the query."""
    found = tour.metric.scores.file["neighbours"]["retrieval"]
    scope = "across_slides" if found["across_slides"] else "all_slides"
    share = found[scope]["precision_at_1"]
    where = "another slide" if scope == "across_slides" else "the dataset, perhaps of the same slide,"
    labels = tour.metric.oof.label.astype(float)
    chance = labels.mean() ** 2 + (1 - labels.mean()) ** 2
    return f"the nearest patch of {where} has the query's label for {share['value']:.0%} of patches (by chance {chance:.0%})."


def round_words(tour: Tour) -> str:
    """What the round added, how right it was, and what it gained; or why no round was made."""
    made = added(tour)
    if made is None:
        return f"none was made: {tour.verdict['stopped']}."
    those = "them" if made.all_known else "those with a known label"
    right = "of unknown precision" if made.precision["value"] is None else f"{made.precision['value']:.0%} of {those} right"
    if check := tour.verdict["planted"]:
        shares = [f"{name} {entry['precision']['value']:.0%}" for name, entry in check["classes"].items() if entry["added"]]
        right += f"; on hidden labels {' and '.join(shares)}" if shares else ""
    return (
        f"{made.patches:,} unlabelled patches were added ({right}). Against the same training on labels alone: "
        f"{gain_word(made.gain)}, {gain_numbers(made.gain)}."
    )


def _promised(run: Run) -> dict[str, Any]:
    return run.scores.file["out_of_fold"]["scores"]["auroc"]


def _of_neighbours(run: Run) -> dict[str, Any]:
    return run.scores.file["neighbours"]["knn"]["out_of_fold"]["scores"]["auroc"]


def _table(run: Run, name: str) -> pd.DataFrame | None:
    """Predictions of every fold; `run.table` gives the mean of the folds."""
    path = run.path / f"{name}.parquet"
    return read_predictions(path) if path.exists() else None


def _of(score: dict[str, Any] | None) -> str:
    return "-" if score is None else interval(score)
