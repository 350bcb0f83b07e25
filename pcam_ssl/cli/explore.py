"""`pcam-ssl explore`: a run's patches with pictures, map and neighbours, for Embedding Atlas."""

import json
import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def explore(
    run: Annotated[Path, Argument(metavar="RUN", help="a run with a finished network")],
    out: Annotated[
        Path | None, Option("--out", metavar="FILE.parquet", help="where to write (default: RUN/explore.parquet)")
    ] = None,
    split: Annotated[str | None, Option("--split", help="only this split")] = None,
    sample: Annotated[
        int, Option("--sample", metavar="N", min=0, help="at most so many patches, drawn at random; 0: all")
    ] = 20_000,
    map: Annotated[str, Option("--map", help="pca, or umap with pcam-ssl[explore]")] = "pca",
    neighbours: Annotated[int, Option("--neighbours", metavar="K", min=0, help="nearest patches of other slides of each")] = 10,
    fold: Annotated[
        int | None, Option("--fold", metavar="K", help="the network of this fold (default: the refit one, else the first fold's)")
    ] = None,
    round: Annotated[int | None, Option("--round", metavar="R", help="this pseudo-label round of RUN, not the best one")] = None,
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the run's dataset, where it has moved")] = None,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    serve: Annotated[bool, Option("--serve", help="open it in Embedding Atlas, on this machine alone, until Ctrl-C")] = False,
    port: Annotated[int, Option("--port", min=1, max=65535, help="with --serve: the port on 127.0.0.1")] = 5055,
    as_json: Annotated[bool, Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write patches with thumbnail, map, label, prob, fold, slide, decision and neighbours, for Embedding Atlas to open.

    Example: pcam-ssl explore runs/metric --split train --serve
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.export.atlas import atlas_options, explore, serve_atlas

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    if map not in ("pca", "umap"):
        raise UserError(f"--map {map}: choose pca or umap")
    facts = explore(
        run,
        out,
        split=split,
        sample=sample,
        method=map,
        neighbours=neighbours,
        fold=fold,
        round=round,
        data=data,
        device=device,
    )
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{facts['file']}: {facts['n']:,} patches, map {facts['map']} of the embedding by {facts['unit']}", flush=True)
    if serve:
        serve_atlas(facts["file"], port)
    elif not as_json:
        print(f"next: embedding-atlas {shlex.join(atlas_options(facts['file'], port))}")
        print("      (from pip install 'pcam-ssl[explore]')")
