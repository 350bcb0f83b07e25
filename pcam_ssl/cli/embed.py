"""`pcam-ssl embed`: embeddings of any patches, by a run or by a frozen backbone."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def embed(
    places: Annotated[
        list[Path],
        Argument(
            metavar="[RUN] SOURCE", help="a finished run (not with --model); a DATASET, or anything `pcam-ssl data import` reads"
        ),
    ],
    out: Annotated[Path, Option("--out", metavar="DIR", help="folder to make: embeddings.npy, ids.parquet, embedding.json")],
    model: Annotated[
        str | None, Option("--model", metavar="NAME", help="a frozen timm, hf-hub: or local-dir: backbone instead of a run")
    ] = None,
    no_pretrained: Annotated[bool, Option("--no-pretrained", help="with --model: random weights")] = False,
    image_size: Annotated[
        int | None, Option("--image-size", metavar="PX", min=16, max=4096, help="with --model: resize patches")
    ] = None,
    fold: Annotated[int | None, Option("--fold", metavar="K", help="the network of this fold instead of the refit one")] = None,
    split: Annotated[str | None, Option("--split", help="only this split of the source")] = None,
    half: Annotated[bool, Option("--half", help="write float16 instead of float32")] = False,
    knn: Annotated[
        bool, Option("--knn", help="with --model: also score labelled patches by their neighbours of other slides")
    ] = False,
    device: Annotated[str, Option("--device", help="auto, cpu, cuda or mps")] = "auto",
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave unreadable files out instead of stopping")] = False,
    as_json: Annotated[bool, Option("--json", help="print embedding.json, and the scores with --knn")] = False,
) -> None:
    """Write embeddings of patches as one memory-mapped array, with their ids in the same order.

    Example: pcam-ssl embed runs/metric data/kaggle --split test --out embeddings/test

    Example: pcam-ssl embed --model hf-hub:OWNER/NAME data/kaggle --knn --out embeddings/frozen
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.render.format import score_table
    from pcam_ssl.search.embed import embed_source

    if len(places) != (2 if model is None else 1):
        raise UserError("embed: give RUN and SOURCE (`pcam-ssl embed RUN SOURCE --out DIR`), or --model NAME and SOURCE alone")
    if model is not None and fold is not None:
        raise UserError("--fold: a backbone named by --model has no folds; drop one of the two")
    if model is None and (no_pretrained or image_size):
        raise UserError("--no-pretrained and --image-size: only with --model; a run's network is as it was trained")
    if model is None and knn:
        raise UserError(
            f"--knn: only with --model; {places[0]} has learned from labels, and its scores.json holds its kNN scores out of fold"
        )
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    facts, scores = embed_source(
        places[-1],
        out,
        run=places[0] if model is None else None,
        fold=fold,
        model=model,
        pretrained=not no_pretrained,
        image_size=image_size,
        split=split,
        half=half,
        knn=knn,
        device=device,
        skip_bad=skip_bad,
    )
    if as_json:
        print(json.dumps({"out": str(out), **facts, **({"knn": scores} if knn else {})}, indent=2))
        return
    for name, report in (scores or {}).items():
        print(score_table(report, f"{name}, nearest neighbours of other slides") + "\n")
    print(f"{out}: {facts['n']:,} embeddings of {facts['dimension']} values, {facts['dtype']}")
    print(f"next: pcam-ssl search {out} --id ID")
