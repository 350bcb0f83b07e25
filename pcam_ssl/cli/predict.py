"""`pcam-ssl predict`: new patches, same network, same views."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def predict(
    run: Annotated[Path, Argument(metavar="RUN", help="folder of a finished run")],
    source: Annotated[Path, Argument(metavar="SOURCE", help="a DATASET, or anything `pcam-ssl data import` reads")],
    out: Annotated[Path, Option("--out", metavar="FILE.parquet", help="Predictions to write")],
    split: Annotated[str | None, Option("--split", help="only this split of the source")] = None,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave unreadable files out instead of stopping")] = False,
    round: Annotated[int | None, Option("--round", metavar="R", help="this pseudo-label round of RUN, not the best one")] = None,
    as_json: Annotated[bool, Option("--json", help="print the scores as JSON")] = False,
) -> None:
    """Score new patches with every fold of a run; where the source has labels, print the scores.

    Example: pcam-ssl predict runs/baseline patches/ --out new.parquet
    """
    from pcam_ssl.blending.predict import predict_source
    from pcam_ssl.render.format import score_table

    if device not in ("auto", "cpu", "cuda", "mps"):
        from pcam_ssl.errors import UserError

        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    n, report = predict_source(run, source, out, split=split, device=device, skip_bad=skip_bad, round=round)
    if as_json:
        print(json.dumps({"out": str(out), "n": n, "scores": report}, indent=2))
        return
    if report is not None:
        print(score_table(report, f"{source}, mean of folds") + "\n")
    print(f"{out}: {n} patches; one row per id and fold, fold -1 is the mean")
