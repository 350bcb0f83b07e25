"""`pcam-ssl export`: a run's network as ONNX, its embeddings as parquet."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def export(
    run: Annotated[Path, Argument(metavar="RUN", help="a run with a finished network")],
    onnx: Annotated[Path | None, Option("--onnx", metavar="FILE.onnx", help="write the network, checked against torch")] = None,
    parquet: Annotated[
        Path | None,
        Option("--parquet", metavar="FILE.parquet", help="write embeddings of the run's dataset, with label, slide, prob"),
    ] = None,
    split: Annotated[str | None, Option("--split", help="with --parquet: only this split")] = None,
    fold: Annotated[
        int | None, Option("--fold", metavar="K", help="the network of this fold (default: the refit one, else the first fold's)")
    ] = None,
    all_folds: Annotated[
        bool, Option("--all-folds", help="with --onnx: the mean of all folds in one file, without embedding")
    ] = False,
    d4: Annotated[
        bool, Option("--d4", help="with --onnx: score all eight D4 views, as predict does; eight times the work")
    ] = False,
    round: Annotated[int | None, Option("--round", metavar="R", help="this pseudo-label round of RUN, not the best one")] = None,
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the run's dataset, where it has moved")] = None,
    device: Annotated[str, Option("--device", help="with --parquet: auto, cpu, cuda or mps")] = "auto",
    as_json: Annotated[bool, Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write a network as ONNX (uint8 patches in; logit, calibrated prob, embedding out), or embeddings as parquet.

    Example: pcam-ssl export runs/baseline --onnx network.onnx

    Example: pcam-ssl export runs/metric --parquet test.parquet --split test
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.files import check_target

    if onnx is None and parquet is None:
        raise UserError("export: say what to write with --onnx FILE.onnx or --parquet FILE.parquet, or both")
    if onnx is None and (all_folds or d4):
        raise UserError("--all-folds and --d4: only with --onnx; embeddings are of one network, and of patches as they are")
    if parquet is None and (split or device != "auto"):
        raise UserError("--split and --device: only with --parquet; the ONNX file is made and checked on the CPU")
    if all_folds and (fold is not None or parquet is not None):
        raise UserError("--all-folds: goes with neither --fold nor --parquet; the folds have no embedding in common")
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    for option, path, suffix in (("--onnx", onnx, ".onnx"), ("--parquet", parquet, ".parquet")):
        if path is not None:
            check_target(option, path, suffix)
    written = {}
    if onnx is not None:
        from pcam_ssl.export.onnx import export_onnx

        written["onnx"] = export_onnx(run, onnx, fold=fold, all_folds=all_folds, d4=d4, round=round, data=data)
    if parquet is not None:
        from pcam_ssl.export.embeddings import export_embeddings

        written["parquet"] = export_embeddings(run, parquet, split=split, fold=fold, round=round, data=data, device=device)
    if as_json:
        print(json.dumps(written, indent=2))
        return
    from pcam_ssl.cli.export_text import export_lines

    print("\n".join(export_lines(written)))
