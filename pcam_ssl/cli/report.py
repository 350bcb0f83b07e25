"""`pcam-ssl report`: finished runs, each on one page."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def report(
    runs: Annotated[list[Path], Argument(metavar="RUN", help="folders of finished runs")],
    sensitivity: Annotated[
        float | None,
        Option(help="operating point: at least this share of tumor patches is called tumor [default: 0.95]", metavar="SHARE"),
    ] = None,
    specificity: Annotated[
        float | None, Option(help="operating point: at least this share of normal patches is called normal", metavar="SHARE")
    ] = None,
    as_json: Annotated[
        bool, Option("--json", help="print verdict and operating point as JSON; a list where several runs are named")
    ] = False,
) -> None:
    """Write RUN/report.html: whether the score can be believed, and everything it stands on.

    The threshold of the operating point is chosen on each fold's inner slides, never on the patches it is scored on.

    Example: pcam-ssl report runs/baseline --sensitivity 0.98
    """
    from pcam_ssl.inference.operating_point import target_asked
    from pcam_ssl.report.reports import write_reports

    told = write_reports(runs, target_asked(sensitivity, specificity))
    if as_json:
        facts = [one.to_dict() for one in told]
        print(json.dumps(facts[0] if len(facts) == 1 else facts, indent=2))
        return
    for one in told:
        print(f"{one.path}: {one.verdict.badge}. {one.verdict.headline}")
