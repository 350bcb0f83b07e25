"""Reports of several runs: all are read before the first page is written. No torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcam_ssl.errors import UserError
from pcam_ssl.inference.operating_point import Target
from pcam_ssl.report.facts import Facts, read_facts
from pcam_ssl.report.operating_facts import operating_point
from pcam_ssl.report.page import write_page
from pcam_ssl.report.verdict import Verdict, judge
from pcam_ssl.run import Run


@dataclass(frozen=True)
class Report:
    """A page that was written, and what it says."""

    path: Path
    facts: Facts
    target: Target
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Where the page is, the verdict, and the operating point (or why there is none), in JSON values."""
        point = operating_point(self.facts, self.target)
        verdict = {"level": self.verdict.level, "headline": self.verdict.headline, "remarks": list(self.verdict.remarks)}
        told = {"absent": point} if isinstance(point, str) else point.to_dict()
        return {"report": str(self.path), "verdict": verdict, "operating_point": told}


def write_reports(paths: list[Path], target: Target) -> list[Report]:
    """Write `report.html` into each run. Raises UserError naming every run that has no report, before anything is written."""
    read, problems = [], []
    for path in dict.fromkeys(paths):
        try:
            read.append(read_facts(Run(path)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return [Report(write_page(facts, target), facts, target, judge(facts)) for facts in read]
