"""`pcam-ssl data audit`: leaks, duplicates, and suspicious labels."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def audit(
    dataset: Annotated[Path, Argument(metavar="DATASET", help="a dataset folder", show_default=False)],
    run: Annotated[
        Path | None, Option("--run", metavar="RUN", help="also audit the folds, embeddings and labels of this run")
    ] = None,
    near_bits: Annotated[int, Option("--near-bits", min=0, max=6, help="how many bits near duplicates may differ in")] = 3,
    html: Annotated[Path | None, Option("--html", metavar="FILE.html", help="write a page with thumbnails")] = None,
    as_json: Annotated[bool, Option("--json", help="print everything as JSON")] = False,
    device: Annotated[str, Option("--device", help="where embeddings are computed: auto, cpu, cuda or mps")] = "auto",
) -> None:
    """Look for slides and patches in two places, conflicting and suspicious labels, and slides that stand apart; exit 3 on a leak.

    Example: pcam-ssl data audit data/kaggle --run runs/metric-train --html audit.html
    """
    from pcam_ssl.audit.audit import audit
    from pcam_ssl.audit.report import as_dict, as_text, write_page
    from pcam_ssl.errors import LeakError, UserError
    from pcam_ssl.files import PAGE, check_target

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    if html is not None:
        check_target("--html", html, *PAGE)
    found = audit(dataset, run, near_bits, device)
    if html is not None:
        write_page(html, found)
    print(json.dumps(as_dict(found), indent=2) if as_json else as_text(found))
    if html is not None and not as_json:
        print(f"page {html}")
    if found.leaks:
        raise LeakError(*(f"{dataset}: {leak.what}; {leak.move}" for leak in found.leaks))
