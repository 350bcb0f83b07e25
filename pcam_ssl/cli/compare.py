"""`pcam-ssl compare`: runs side by side."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def compare(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="finished runs; also RUN/round-2, RUN:knn, RUN:blend")],
    html: Annotated[Path | None, Option("--html", metavar="FILE", help="also write a page with charts")] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Put runs of the same dataset and folds side by side: scores, paired differences to the first, cost, correlation.

    Example: pcam-ssl compare runs/resnet34 runs/densenet121 --html compare.html
    """
    from pcam_ssl.compare.compare import compare_runs
    from pcam_ssl.files import PAGE, check_target

    if html is not None:
        check_target("--html", html, *PAGE)
    show_comparison(compare_runs(runs), html, as_json)


def show_comparison(comparison: dict, html: Path | None, as_json: bool) -> None:
    """Print a comparison, and write its page where asked for."""
    from pcam_ssl.compare.compare import write_page
    from pcam_ssl.compare.report import compare_text

    if html is not None:
        write_page(html, comparison)
    print(json.dumps(comparison, indent=2) if as_json else compare_text(comparison))
    if html is not None and not as_json:
        print(f"\npage {html}")
