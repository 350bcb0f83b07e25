"""`pcam-ssl export`: a run's network as ONNX, its embeddings as parquet."""

import json
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from pcam_ssl.cli.options import MovedOption, RoundOption


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
    round: RoundOption = None,
    data: MovedOption = None,
    device: Annotated[str, Option("--device", help="with --parquet: auto, cpu, cuda or mps")] = "auto",
    as_json: Annotated[bool, Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write a network as ONNX (uint8 patches in; logit, calibrated prob, embedding out), or embeddings as parquet.

    Example: pcam-ssl export runs/baseline --onnx network.onnx

    Example: pcam-ssl export runs/metric --parquet test.parquet --split test
    """
    from pcam_ssl.api import export

    written = export(
        run,
        onnx=onnx,
        parquet=parquet,
        split=split,
        fold=fold,
        all_folds=all_folds,
        d4=d4,
        round=round,
        data=data,
        device=device,
    )
    print(json.dumps(written, indent=2) if as_json else "\n".join(export_lines(written)))


def export_lines(written: dict[str, dict[str, Any]]) -> list[str]:
    """A line for the ONNX file, with how far it is from torch, and one for the embeddings, of those that were written."""
    told = {"onnx": _onnx_line, "parquet": _parquet_line}
    return [told[kind](facts) for kind, facts in written.items()]


def _onnx_line(facts: dict[str, Any]) -> str:
    checked = facts["checked"]
    largest = max(checked["largest_difference"].values())
    whose = facts["units"][0] if len(facts["units"]) == 1 else f"the mean of {len(facts['units'])} folds"
    return (
        f"{facts['file']}: {whose}, {', '.join(facts['outputs'])} of uint8 [batch, {facts['size_px']}, {facts['size_px']}, 3]; "
        f"checked against torch on {checked['n']} patches of {checked['dataset']}: largest difference {largest:.1e}, "
        f"allowed {checked['limit']:.0e}"
    )


def _parquet_line(facts: dict[str, Any]) -> str:
    return f"{facts['file']}: {facts['n']:,} embeddings of {facts['dimension']} values by {facts['unit']}"
