"""`pcam-ssl pseudo-label`: rounds of pseudo-labels, their verdict, and one patch's story."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.train import RecipeOption, SetOption


def pseudo_label(
    run: Annotated[Path, Argument(metavar="[RUN]", help="a finished run: round 0; made first where there is none")] = Path(
        "runs/baseline"
    ),
    rounds: Annotated[int, Option("--rounds", metavar="N", help="rounds in all; those that are there are not done again")] = 3,
    out: Annotated[Path | None, Option("--out", metavar="RUN", help="where the rounds lie (default: inside RUN)")] = None,
    data: Annotated[
        Path | None, Option("--data", metavar="DATASET", help="for a new round 0, or where RUN's dataset has moved")
    ] = None,
    recipe: RecipeOption = None,
    set: SetOption = None,
    pooled: Annotated[
        bool, Option("--pooled", help="every fold learns from the pseudo-labels of all folds; out-of-fold scores are withheld")
    ] = False,
    explain: Annotated[
        str | None, Option("--explain", metavar="ID", help="only tell one patch's story over rounds and folds")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print rounds.json instead of tables")] = False,
) -> None:
    """Let confident predictions on unlabelled patches join the training set, round by round, without leaking.

    Example: pcam-ssl pseudo-label runs/baseline --rounds 3 --set pseudo.precision=0.95
    """
    from pcam_ssl.api import pseudo_label
    from pcam_ssl.distributed import own_rank
    from pcam_ssl.pseudo_labels.patch_history import patch_history_text
    from pcam_ssl.pseudo_labels.report import rounds_text

    if explain is not None:
        print(patch_history_text(run, explain, out, pooled))
        return
    verdict = pseudo_label(run, rounds, recipe=recipe, settings=set or [], out=out, data=data, pooled=pooled)
    if not own_rank():
        print(json.dumps(verdict, indent=2) if as_json else rounds_text(verdict))
