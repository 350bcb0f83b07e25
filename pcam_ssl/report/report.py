"""`pcam-ssl report RUN...`: a page of each run, with what its dataset and networks add. All runs are read before the first page is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pcam_ssl.data.dataset import Dataset, find_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import check_target
from pcam_ssl.neighbors.embedding_map import METHODS
from pcam_ssl.report.cases import Pictures, shown_cases
from pcam_ssl.report.model_card import FILE
from pcam_ssl.report.operating_point import operating_point
from pcam_ssl.report.page import REPORT, write_page
from pcam_ssl.report.page_blocks import page_blocks, page_sections
from pcam_ssl.report.page_markdown import page_markdown
from pcam_ssl.report.scores import repeat_command
from pcam_ssl.report.verdict import Verdict, judge, what_was_done
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.run import ROUNDS_FILE, Run, run_in_use


@dataclass(frozen=True)
class Asked:
    """What a report asks of a run's networks: nothing where `explain` is false. `data`: where its dataset lies, where that has moved."""

    explain: bool = True
    method: str = METHODS[0]
    data: Path | str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Report:
    """A page that was written, and what it says."""

    path: Path
    facts: Facts
    target: Target
    verdict: Verdict
    pictures: Pictures

    def to_dict(self) -> dict[str, Any]:
        """All that the page says, and what it was read from, in JSON values; "absent" says why a section is not there."""
        facts, verdict, point = self.facts, self.verdict, operating_point(self.facts, self.target)
        sections = page_sections(page_blocks(self.path.read_text(encoding="utf-8")))
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
            "sections": sections,
            "absent": {section["title"]: section["absent"] for section in sections if section["absent"]},
        }

    def to_markdown(self) -> str:
        """The page as markdown, charts and pictures by their words."""
        return page_markdown(self.path.read_text(encoding="utf-8"))


def report_runs(paths: Iterable[Path], target: Target, asked: Asked) -> list[Report]:
    """Write the page and the model card of each run. Raises UserError, before anything is written, for runs that have no report."""
    if asked.method not in METHODS:
        raise UserError(f"--map {asked.method}: choose {' or '.join(METHODS)}")
    return write_reports(list(paths), target, lambda facts: pictures_of(facts, asked))


def first_report(run: Run) -> Path:
    """The page of a run that has just ended: all but what its networks would have to be asked for. Raises UserError as `read_facts` does."""
    facts = read_facts(run)
    return write_page(facts, pictures=pictures_of(facts, Asked(explain=False)))


def pictures_of(facts: Facts, asked: Asked) -> Pictures:
    """Galleries and maps of a run, or the reason why a part is not there.

    Raises UserError where `data` is named and is not the run's dataset, and for a map by another method than PCA that cannot be made.
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
    """The same with what the networks say."""
    from pcam_ssl.report.evidence import explain_cases, lay_out
    from pcam_ssl.runs.networks import open_networks

    # A run that rounds were made on would otherwise stand for the best of them.
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


def write_reports(paths: list[Path], target: Target, pictures: Callable[[Facts], Pictures]) -> list[Report]:
    """Write `report.html` and the model card into each run. Raises UserError naming every run that has no report, before anything is written.

    `pictures` gives what dataset and networks of a run add. Where `path` holds pseudo-label rounds alone, the best of them is reported.
    """
    read, problems = [], []
    for path in dict.fromkeys(paths):
        try:
            read.append(read_facts(Run(path) if Run(path).paths.provenance.exists() else run_in_use(path)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for facts in read:
        check_target("report", facts.run.path / REPORT, ".html")
        check_target("report", facts.run.path / FILE, ".md")
    shown = [(facts, pictures(facts)) for facts in read]
    return [Report(write_page(facts, target, found), facts, target, judge(facts), found) for facts, found in shown]
