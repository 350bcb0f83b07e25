"""`pcam-ssl blend`: one run from several."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def blend(
    runs: Annotated[list[str], Argument(metavar="RUN...", help="finished runs; also RUN/round-2, RUN:knn, RUN:blend")],
    out: Annotated[Path, Option("--out", metavar="RUN", help="the run folder to make")],
    method: Annotated[
        str,
        Option(
            "--method",
            help="mean (of probs), rank-mean, logit-mean; weights (fitted, not negative) and greedy (forward selection), both nested over folds",
        ),
    ] = "mean",
    max_correlation: Annotated[
        float | None, Option("--max-correlation", metavar="R", help="of two runs more alike than this, drop the worse (Spearman)")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print scores.json instead of a table")] = False,
) -> None:
    """Blend the predictions of several runs into a run of its own; weights that score a fold never saw its labels.

    Example: pcam-ssl blend runs/resnet34 runs/densenet121 runs/metric:knn --method weights --out runs/blend
    """
    from pcam_ssl.api import blend as blend_runs
    from pcam_ssl.blending.report import blend_text
    from pcam_ssl.records import read_scores
    from pcam_ssl.report.summary import run_summary

    run = blend_runs(runs, out, method, max_correlation)
    scores = read_scores(run.path)
    print(json.dumps(scores, indent=2) if as_json else f"{run_summary(run, scores)}\n\n{blend_text(scores)}")
