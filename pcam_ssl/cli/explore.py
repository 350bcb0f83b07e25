"""`pcam-ssl embed`, `pcam-ssl explain`, `pcam-ssl heatmap` and `pcam-ssl explore`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.options import DeviceOption, MovedOption, RoundOption


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
    weights: Annotated[
        Path | None, Option("--weights", metavar="FILE", help="with --model: your own weights, safetensors or a torch state dict")
    ] = None,
    image_size: Annotated[
        int | None, Option("--image-size", metavar="PX", min=16, max=4096, help="with --model: resize patches")
    ] = None,
    fold: Annotated[int | None, Option("--fold", metavar="K", help="the network of this fold instead of the refit one")] = None,
    split: Annotated[str | None, Option("--split", help="only this split of the source")] = None,
    half: Annotated[bool, Option("--half", help="write float16 instead of float32")] = False,
    knn: Annotated[
        bool, Option("--knn", help="with --model: also score labelled patches by their neighbours of other slides")
    ] = False,
    device: DeviceOption = "auto",
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave unreadable files out instead of stopping")] = False,
    as_json: Annotated[bool, Option("--json", help="print embedding.json, and the scores with --knn")] = False,
) -> None:
    """Write embeddings of patches as one memory-mapped array, with their ids in the same order.

    Example: pcam-ssl embed runs/metric data/kaggle --split test --out embeddings/test

    Example: pcam-ssl embed --model hf-hub:OWNER/NAME data/kaggle --knn --out embeddings/frozen
    """
    from pcam_ssl.api import EMBED_USAGE, embed
    from pcam_ssl.errors import UserError
    from pcam_ssl.render.format import score_table

    if len(places) > 2:
        raise UserError(EMBED_USAGE)
    made = embed(
        places[-1],
        out=out,
        run=places[0] if len(places) == 2 else None,
        model=model,
        pretrained=not no_pretrained,
        weights=weights,
        image_size=image_size,
        fold=fold,
        split=split,
        half=half,
        knn=knn,
        device=device,
        skip_bad=skip_bad,
    )
    if as_json:
        print(json.dumps({"out": str(out), **made.facts, **({"knn": made.knn_scores} if knn else {})}, indent=2))
        return
    for scores in made.knn.values():
        print(score_table(scores.report, scores.title) + "\n")
    print(made)
    print(f"next: {shlex.join(['pcam-ssl', 'search', str(out), '--id', 'ID'])}")


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
    data: MovedOption = None,
    round: RoundOption = None,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Explain scores: Grad-CAM, its share in the centre, blurred centre and surround, agreement over views, neighbours.

    Example: pcam-ssl explain runs/baseline --id 0a1b2c --id 3d4e5f
    """
    from pcam_ssl.api import explain, explain_fold
    from pcam_ssl.errors import UserError
    from pcam_ssl.explain.report import fold_text

    if bool(ids) == (whole_fold is not None):
        raise UserError("explain: name patches with --id ID, or a fold with --whole-fold K")
    if whole_fold is not None:
        if fold is not None or out is not None:
            raise UserError("--whole-fold: takes neither --fold nor --out; its own network explains a fold, and a table is printed")
        facts = explain_fold(run, whole_fold, data=data, round=round, device=device)
        print(json.dumps(facts, indent=2) if as_json else fold_text(facts))
        return
    explained = explain(run, ids, fold=fold, neighbours=neighbours, out=out, data=data, round=round, device=device)
    if as_json:
        patches = [each.to_dict() for each in explained.patches]
        print(json.dumps({"run": str(run), "page": str(explained.page), "patches": patches}, indent=2))
    else:
        print(explained)


def heatmap(
    run: Annotated[Path, Argument(metavar="RUN", help="a run with finished folds, or a blend")],
    source: Annotated[Path, Argument(metavar="SLIDE|DATASET", help="a whole slide, or a dataset with coordinates")],
    out: Annotated[Path | None, Option("--out", metavar="DIR", help="where files go (default: RUN/heatmaps/NAME)")] = None,
    slide: Annotated[
        list[str] | None, Option("--slide", metavar="NAME", help="only this slide of DATASET; repeatable (default: all)")
    ] = None,
    size: Annotated[
        int | None, Option("--size", help="SLIDE: edge of a patch in px (default: as in the run's dataset)", show_default=False)
    ] = None,
    mpp: Annotated[
        float | None,
        Option(
            "--mpp",
            help="SLIDE: microns per pixel of the patches (default: as in the run's dataset); DATASET: those of x and y",
            show_default=False,
        ),
    ] = None,
    stride: Annotated[
        int | None, Option("--stride", min=1, help="SLIDE: px from one patch to the next (default: --size)", show_default=False)
    ] = None,
    tissue: Annotated[
        float | None, Option("--tissue", help="SLIDE: share of a patch that must be tissue (default: 0.5)", show_default=False)
    ] = None,
    assume_mpp: Annotated[
        float | None,
        Option("--assume-mpp", help="SLIDE: microns per pixel of level 0, where it does not say it", show_default=False),
    ] = None,
    data: MovedOption = None,
    round: RoundOption = None,
    device: DeviceOption = "auto",
    workers: Annotated[
        int | None, Option("--workers", min=1, help="SLIDE: reading threads (default: one a core, at most 8)", show_default=False)
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print summary.json instead of a table")] = False,
) -> None:
    """Map the prob of tumor over slides, by the fold that never saw them: pictures, pages, detections for QuPath, arrays.

    Example: pcam-ssl heatmap runs/baseline slides/case-1.svs --mpp 0.97

    Example: pcam-ssl heatmap runs/baseline data/mine --slide case-1
    """
    from pcam_ssl.api import heatmap

    cut = {"size": size, "mpp": mpp, "stride": stride, "tissue": tissue, "assume_mpp": assume_mpp, "workers": workers}
    made = heatmap(run, source, out=out, slide=slide or (), data=data, round=round, device=device, **cut)
    print(json.dumps(made.to_dict(), indent=2) if as_json else made)


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
    round: RoundOption = None,
    data: MovedOption = None,
    device: DeviceOption = "auto",
    serve: Annotated[bool, Option("--serve", help="open it in Embedding Atlas, on this machine alone, until Ctrl-C")] = False,
    port: Annotated[int, Option("--port", min=1, max=65535, help="with --serve: the port on 127.0.0.1")] = 5055,
    as_json: Annotated[bool, Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write patches with thumbnail, map, label, prob, fold, slide, decision and neighbours, for Embedding Atlas to open.

    Example: pcam-ssl explore runs/metric --split train --serve
    """
    from pcam_ssl.api import explore
    from pcam_ssl.api import serve as open_atlas
    from pcam_ssl.export.atlas import atlas_options

    facts = explore(
        run,
        out=out,
        split=split,
        sample=sample,
        map=map,
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
        open_atlas(facts["file"], port=port)
    elif not as_json:
        print(f"next: embedding-atlas {shlex.join(atlas_options(facts['file'], port))}")
        print("      (from pip install 'pcam-ssl[explore]')")
