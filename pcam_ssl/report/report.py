"""`pcam-ssl report RUN...`: a page for each run, from its folder, dataset and networks. All runs are read before the first page is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from pcam_ssl.blending.report import members_section
from pcam_ssl.data.dataset import Dataset, find_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import check_target, write_text
from pcam_ssl.neighbors.embedding_map import METHODS
from pcam_ssl.pseudo_labels.report import rounds_section
from pcam_ssl.records import read_rounds
from pcam_ssl.render import html
from pcam_ssl.render.document import Document, Group, Section
from pcam_ssl.render.text import markdown, sections
from pcam_ssl.report.cases import Pictures, shown_cases
from pcam_ssl.report.figures import (
    precision_section,
    reliability_section,
    roc_section,
    slides_section,
    training_loss_section,
    watched_section,
)
from pcam_ssl.report.galleries import map_section, unsure_section, wrong_section
from pcam_ssl.report.model_card import FILE, model_card
from pcam_ssl.report.operating_point import OperatingPoint, decision_section, operating_point, operating_section
from pcam_ssl.report.scores import (
    folds_section,
    held_out_section,
    provenance_section,
    repeat_command,
    retrieval_section,
    score_section,
    verdict_block,
    views_section,
)
from pcam_ssl.report.slide_maps import slide_maps_section
from pcam_ssl.report.verdict import Verdict, judge, what_was_done
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.run import ROUNDS, ROUNDS_FILE, Run, run_in_use

REPORT = "report.html"

# In the order of the page: key, title (a section may have one of its own), function of a Report that makes a Section or None, place.
# Sections of one row stand side by side where the page is wide enough: `columns` are numbered, a `pair` gives each section half of
# the width, and a `wide` row or no row gives it the whole width.
SECTIONS: tuple[tuple[str, str, Callable[["Report"], Section | None], str], ...] = (
    ("scores", "Scores out of fold", lambda report: score_section(report.facts), "columns-1/1"),
    ("held-out", "Scores on held-out slides", lambda report: held_out_section(report.facts), "columns-1/1"),
    ("roc", "ROC curve", lambda report: roc_section(report.facts), "columns-1/2"),
    ("precision", "Precision and recall", lambda report: precision_section(report.facts), "columns-1/2"),
    (
        "operating-point",
        "Operating point",
        lambda report: operating_section(report.facts, report.point, report.target),
        "columns-1/3",
    ),
    ("slides", "Scores by slide", lambda report: slides_section(report.facts), "columns-2/1"),
    ("reliability", "Calibration", lambda report: reliability_section(report.facts), "columns-2/2"),
    ("views", "Test-time views", lambda report: views_section(report.facts), "columns-2/2"),
    ("decision", "Decision curve", lambda report: decision_section(report.facts), "columns-2/3"),
    ("training-loss", "Training loss by epoch", lambda report: training_loss_section(report.facts), "pair-1"),
    ("auroc-by-epoch", "AUROC by epoch", lambda report: watched_section(report.facts), "pair-1"),
    ("slide-maps", "Maps of slides", lambda report: slide_maps_section(report.pictures.slides), "wide"),
    ("wrong", "Most confident errors", lambda report: wrong_section(report.pictures), "wide"),
    ("unsure", "Least confident", lambda report: unsure_section(report.pictures), "wide"),
    ("rounds", "Pseudo-label rounds", lambda report: rounds_section(report.facts.rounds), "pair-2"),
    ("pooled", "Pseudo-label rounds, pooled", lambda report: rounds_section(report.facts.rounds, pooled=True), "pair-2"),
    ("retrieval", "Nearest neighbours", lambda report: retrieval_section(report.facts.scores), "pair-2"),
    ("map", "Embedding map", lambda report: map_section(report.pictures), ""),
    ("members", "Members of this blend", lambda report: members_section(report.facts.scores), ""),
    ("folds", "Scores by fold", lambda report: folds_section(report.facts), ""),
    ("provenance", "Provenance", lambda report: provenance_section(report.facts), ""),
)


@dataclass(frozen=True)
class Asked:
    """How a report uses the run's networks: not at all where `explain` is false. `data`: the path of the dataset, if it has moved."""

    explain: bool = True
    method: str = METHODS[0]
    data: Path | str | None = None
    device: str = "auto"


@dataclass(frozen=True, repr=False)
class Report:
    """A run's report: the files of its folder, the target of its operating point, and pictures from its dataset and networks."""

    facts: Facts
    target: Target = field(default_factory=Target)
    pictures: Pictures = field(default_factory=Pictures)

    def __repr__(self) -> str:
        return f"{self.path}: {self.verdict.badge}. {self.verdict.headline}"

    @property
    def path(self) -> Path:
        """The path of the page."""
        return self.facts.run.path / REPORT

    @cached_property
    def verdict(self) -> Verdict:
        return judge(self.facts)

    @cached_property
    def point(self) -> OperatingPoint | str:
        """The operating point at the target, or the reason why there is none."""
        return operating_point(self.facts, self.target)

    @cached_property
    def document(self) -> Document:
        """The verdict, then `SECTIONS`; the same run, target and pictures give the same document."""
        facts, body = self.facts, []
        made = [(place, replace(section, key=key, title=section.title or title)) for key, title, section, place in self._made()]
        for row, placed in groupby(made, key=lambda each: each[0].partition("/")[0]):
            body += _laid_out(row, list(placed))
        return Document(
            f"{facts.run.path.resolve().name}: pcam-ssl {facts.info['command']}",
            (verdict_block(facts, self.verdict), *body),
            footer=f"Made by pcam-ssl {facts.info['versions']['pcam-ssl']} for research. Not for diagnosis.",
        )

    def write(self) -> Path:
        """Write the page and the model card beside it; the page's path."""
        write_text(self.path, html.page(self.document))
        write_text(self.facts.run.path / FILE, model_card(self.facts, self.verdict))
        return self.path

    def to_dict(self) -> dict[str, Any]:
        """The content of the page and the files behind it, as JSON values; "absent" holds the reason for each missing section."""
        facts, verdict, point = self.facts, self.verdict, self.point
        shown = sections(self.document)
        return {
            "report": str(self.path),
            "model_card": str(facts.run.path / FILE),
            "verdict": {
                "level": verdict.level,
                "badge": verdict.badge,
                "headline": verdict.headline,
                "remarks": list(verdict.remarks),
            },
            "done": dict(what_was_done(facts)),
            "operating_point": {"absent": point} if isinstance(point, str) else point.to_dict(),
            "scores": facts.scores,
            "rounds": {str(folder): rounds for folder, rounds in facts.rounds.items()},
            "pictures": self.pictures.to_dict(),
            "provenance": {**facts.info, "repeat": repeat_command(facts), "recipe": facts.recipe},
            "sections": shown,
            "absent": {section["title"]: section["absent"] for section in shown if section["absent"]},
        }

    def to_markdown(self) -> str:
        """The page as markdown, with the alt texts of charts and pictures."""
        return markdown(self.document)

    def _made(self) -> Iterable[tuple[str, str, Section, str]]:
        made = ((key, title, make(self), place) for key, title, make, place in SECTIONS)
        return (each for each in made if each[2] is not None)


def _laid_out(row: str, placed: list[tuple[str, Section]]) -> list[Group | Section]:
    """The sections of a row as a group that a page lays out; sections without a row as they are."""
    look, inside = row.partition("-")[0], [section for _, section in placed]
    if look == "columns":
        columns = groupby(placed, key=lambda each: each[0])
        inside = [Group([section for _, section in column], "column") for _, column in columns]
    return [Group(inside, look)] if look else inside


def report_runs(paths: Iterable[Path], target: Target, asked: Asked) -> list[Report]:
    """Write the page and the model card of each run. Raises UserError, before anything is written, for runs that have no report."""
    if asked.method not in METHODS:
        raise UserError(f"--map {asked.method}: choose {' or '.join(METHODS)}")
    return write_reports(list(paths), target, lambda facts: pictures_of(facts, asked))


def first_report(run: Run) -> Path:
    """The path of the page of a run that has just ended, written without the parts that need its networks. Raises UserError as `read_facts` does."""
    facts = read_facts(run)
    return Report(facts, pictures=pictures_of(facts, Asked(explain=False))).write()


def pictures_of(facts: Facts, asked: Asked) -> Pictures:
    """Galleries and maps of a run, or the reason why a part is missing.

    Raises UserError where `data` is given and is not the run's dataset, and where a map other than PCA cannot be made.
    """
    try:
        dataset = find_dataset(facts.run.path, facts.info["dataset"], facts.info["dataset_digest"], asked.data)
    except UserError as error:
        if asked.data is not None:
            raise
        return _without(error)
    if facts.oof is None:
        return _without(UserError("oof.parquet is not in the run folder"))
    pictures = shown_cases(facts.labelled, dataset)
    return _asked(facts, dataset, pictures, asked) if asked.explain else pictures


def _asked(facts: Facts, dataset: Dataset, pictures: Pictures, asked: Asked) -> Pictures:
    """The pictures with explanations, neighbours and maps from the networks."""
    from pcam_ssl.report.evidence import explain_cases, lay_out
    from pcam_ssl.runs.networks import open_networks

    # Without a number, a run with rounds would open the networks of its best round.
    own = 0 if (facts.run.path / ROUNDS_FILE).exists() else None
    try:
        networks = open_networks(facts.run.path, dataset.path, own)
    except UserError as error:
        return replace(pictures, no_explanations=error.problems[0], no_maps=error.problems[0])
    pictures = explain_cases(pictures, networks, asked.device)
    try:
        return lay_out(pictures, facts.labelled, networks, asked.method, facts.recipe.get("seed", 0), asked.device)
    except UserError as error:
        if asked.method != METHODS[0]:
            raise
        return replace(pictures, no_maps=error.problems[0])


def _without(error: UserError) -> Pictures:
    reason = error.problems[0]
    return Pictures(no_cases=reason, no_explanations=reason, no_maps=reason)


def _facts_at(path: Path) -> Facts:
    """What the report of a run shows, or where `path` holds only pseudo-label rounds, that of the round in use."""
    if Run(path).paths.provenance.exists():
        return read_facts(Run(path))
    facts = read_facts(run_in_use(path))
    # Where round 0 is in use, its own folder knows nothing of rounds that lie elsewhere.
    return (
        facts if facts.info["command"] == ROUNDS else replace(facts, rounds={Path(path): read_rounds(Path(path)), **facts.rounds})
    )


def write_reports(paths: list[Path], target: Target, pictures: Callable[[Facts], Pictures]) -> list[Report]:
    """Write `report.html` and the model card into each run. Raises UserError naming every run that has no report, before anything is written.

    `pictures` returns the galleries and maps of a run. Where `path` holds only pseudo-label rounds, the round in use is reported.
    """
    read, problems = [], []
    for path in dict.fromkeys(paths):
        try:
            read.append(_facts_at(path))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for facts in read:
        check_target("report", facts.run.path / REPORT, ".html")
        check_target("report", facts.run.path / FILE, ".md")
    reports = [Report(facts, target, pictures(facts)) for facts in read]
    for report in reports:
        report.write()
    return reports
