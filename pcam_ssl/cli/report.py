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
    explain: Annotated[
        bool, Option("--explain/--no-explain", help="ask the networks for explanations, neighbours, and embedding maps")
    ] = True,
    map: Annotated[str, Option("--map", help="embedding map by pca, or umap (extra: pcam-ssl[explore])")] = "pca",
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the runs' dataset, where it has moved")] = None,
    device: Annotated[str, Option("--device", help="where the networks are asked: auto, cpu, cuda or mps")] = "auto",
    as_markdown: Annotated[bool, Option("--md", help="print the page as markdown instead of a line")] = False,
    as_json: Annotated[
        bool, Option("--json", help="print all that the page says as JSON; a list where several runs are named")
    ] = False,
) -> None:
    """Write RUN/report.html: whether the score can be believed, and everything it stands on; and RUN/model-card.md.

    The threshold of the operating point is chosen on each fold's inner slides, never on the patches it is scored on.

    Example: pcam-ssl report runs/baseline --sensitivity 0.98
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.evaluation.operating_point import target_asked
    from pcam_ssl.report.report import Asked, report_runs

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    if as_markdown and as_json:
        raise UserError("--md, --json: one of them is printed; name one")
    told = report_runs(runs, target_asked(sensitivity, specificity), Asked(explain, map, data, device))
    if as_json:
        facts = [one.to_dict() for one in told]
        print(json.dumps(facts[0] if len(facts) == 1 else facts, indent=2))
    elif as_markdown:
        print("\n".join(one.to_markdown() for one in told), end="")
    else:
        for one in told:
            print(f"{one.path}: {one.verdict.badge}. {one.verdict.headline}")
