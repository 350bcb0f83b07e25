"""Reports of several runs: all are read before the first page is written. No torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import check_target
from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.model_card import FILE
from pcam_ssl.report.operating_facts import operating_point
from pcam_ssl.report.page import REPORT, write_page
from pcam_ssl.report.page_blocks import page_blocks, page_sections
from pcam_ssl.report.page_markdown import page_markdown
from pcam_ssl.report.scores import repeat_command
from pcam_ssl.report.verdict import Verdict, judge, what_was_done
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.run import Run, run_in_use


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


def write_reports(paths: list[Path], target: Target, pictures: Callable[[Facts], Pictures]) -> list[Report]:
    """Write `report.html` and the model card into each run. Raises UserError naming every run that has no report, before anything is written.

    `pictures` gives what dataset and networks of a run add. Where `path` holds pseudo-label rounds alone, the best of them is reported.
    """
    read, problems = [], []
    for path in dict.fromkeys(paths):
        try:
            read.append(read_facts(Run(path) if Run(path).provenance.exists() else run_in_use(path)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    for facts in read:
        check_target("report", facts.run.path / REPORT, ".html")
        check_target("report", facts.run.path / FILE, ".md")
    shown = [(facts, pictures(facts)) for facts in read]
    return [Report(write_page(facts, target, found), facts, target, judge(facts), found) for facts, found in shown]
