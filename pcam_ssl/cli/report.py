"""`pcam-ssl report`: a finished run on one page."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def report(
    run: Annotated[Path, Argument(metavar="RUN", help="folder of a finished run")],
    as_json: Annotated[bool, Option("--json", help="print the verdict as JSON")] = False,
) -> None:
    """Write RUN/report.html: whether the score can be believed, and everything it stands on.

    Example: pcam-ssl report runs/baseline
    """
    from pcam_ssl.report.facts import read_facts
    from pcam_ssl.report.page import write_report
    from pcam_ssl.report.verdict import judge
    from pcam_ssl.run import Run

    verdict = judge(read_facts(Run(run)))
    path = write_report(Run(run))
    if as_json:
        facts = {"level": verdict.level, "headline": verdict.headline, "remarks": list(verdict.remarks)}
        print(json.dumps({"report": str(path), "verdict": facts}, indent=2))
        return
    print(f"{verdict.badge}: {verdict.headline}\nreport {path}")
