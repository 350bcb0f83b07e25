"""`pcam-ssl explain`: where a run's networks look, for patches or for a whole fold."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def explain(
    run: Annotated[Path, Argument(metavar="RUN", help="a run with finished folds")],
    ids: Annotated[list[str] | None, Option("--id", metavar="ID", help="a patch of the run's dataset; repeatable")] = None,
    whole_fold: Annotated[
        int | None,
        Option("--whole-fold", metavar="K", help="instead: mean centre share over all that fold K scored, right against wrong"),
    ] = None,
    fold: Annotated[
        int | None,
        Option("--fold", metavar="K", help="this fold's network (default: the one that never saw the patch, else the mean of all)"),
    ] = None,
    neighbours: Annotated[int, Option("--neighbours", min=0, help="nearest labelled patches of other slides to show")] = 6,
    out: Annotated[
        Path | None, Option("--out", metavar="DIR", help="where explain.html and ID.png go (default: RUN/explain)")
    ] = None,
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the run's dataset, where it has moved")] = None,
    round: Annotated[int | None, Option("--round", metavar="R", help="this pseudo-label round of RUN, not the best one")] = None,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    as_json: Annotated[bool, Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Explain scores: Grad-CAM, its share in the centre, blurred centre and surround, agreement over views, neighbours.

    Example: pcam-ssl explain runs/baseline --id 0a1b2c --id 3d4e5f
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.explain.report import explained_text, fold_text

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    if bool(ids) == (whole_fold is not None):
        raise UserError("explain: name patches with --id ID, or a fold with --whole-fold K")
    if whole_fold is not None:
        from pcam_ssl.explain.explain import explain_fold

        if fold is not None or out is not None:
            raise UserError("--whole-fold: takes neither --fold nor --out; its own network explains a fold, and a table is printed")
        facts = explain_fold(run, whole_fold, data=data, round=round, device=device)
        print(json.dumps(facts, indent=2) if as_json else fold_text(facts))
        return
    from pcam_ssl.explain.explain import explain_patches

    explained, page = explain_patches(run, ids, fold=fold, neighbours=neighbours, out=out, data=data, round=round, device=device)
    if as_json:
        print(json.dumps({"run": str(run), "page": str(page), "patches": [each.to_dict() for each in explained]}, indent=2))
        return
    print("\n\n".join(explained_text(each) for each in explained))
    print(f"\npage {page}")
