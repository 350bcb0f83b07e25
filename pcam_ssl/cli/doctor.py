"""`pcam-ssl doctor`: is this machine fit, and what mends it."""

from pathlib import Path
from typing import Annotated

from typer import Exit, Option


def doctor(
    data: Annotated[
        Path | None, Option("--data", metavar="DATASET", help="dataset to look at; default $PCAM_SSL_DATA, else data/pcam")
    ] = None,
    verify: Annotated[bool, Option("--verify", help="read all pixels of the dataset again and compare their digest")] = False,
    as_json: Annotated[bool, Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Check versions, device, precision, disk, and dataset; one line each, the mend beside what is wrong.

    Exits with 2 where something must be mended. Example: pcam-ssl doctor --data data/pcam --verify
    """
    import json
    from dataclasses import asdict

    from pcam_ssl.doctor import examine

    findings = examine(data, verify=verify)
    print(json.dumps([asdict(finding) for finding in findings], indent=2) if as_json else "\n".join(f.line() for f in findings))
    if any(finding.state == "fail" for finding in findings):
        raise Exit(2)
