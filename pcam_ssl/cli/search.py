"""`pcam-ssl search` and `pcam-ssl index`."""

import json
import shlex
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.options import DeviceOption, MovedOption


def search(
    run: Annotated[Path, Argument(metavar="RUN", help="a finished run with a refit network, or a folder of `pcam-ssl embed`")],
    ids: Annotated[list[str] | None, Option("--id", metavar="ID", help="a patch of the run's dataset; repeatable")] = None,
    images: Annotated[list[Path] | None, Option("--image", metavar="FILE", help="an image of a patch; repeatable")] = None,
    slide: Annotated[
        str | None, Option("--slide", metavar="S", help="with --at: the patch of this slide nearest to that place")
    ] = None,
    at: Annotated[str | None, Option("--at", metavar="X,Y", help="a place on --slide, px as in the dataset")] = None,
    source: Annotated[
        Path | None, Option("--source", help="all patches of a DATASET, or of anything `pcam-ssl data import` reads")
    ] = None,
    k: Annotated[int, Option("-k", help="neighbours of each query")] = 10,
    any_slide: Annotated[bool, Option("--any-slide", help="also find patches of the query's own slide")] = False,
    index: Annotated[str | None, Option("--index", metavar="FACTORY", help="FAISS factory string (default: exact)")] = None,
    rebuild: Annotated[bool, Option("--rebuild", help="make RUN/index anew; needs no query")] = False,
    backend: Annotated[str, Option("--backend", help="where FAISS searches: auto, cpu or gpu")] = "auto",
    store: Annotated[
        str | None,
        Option(
            "--store", metavar="URI", help="search the vector database that `pcam-ssl index` loaded: NAME.db or http://HOST:19530"
        ),
    ] = None,
    only_split: Annotated[
        list[str] | None, Option("--only-split", metavar="S", help="with --store: neighbours of this split; repeatable")
    ] = None,
    only_label: Annotated[
        list[int] | None, Option("--only-label", metavar="0|1", help="with --store: neighbours of this label; repeatable")
    ] = None,
    only_slide: Annotated[
        list[str] | None, Option("--only-slide", metavar="S", help="with --store: neighbours of this slide; repeatable")
    ] = None,
    data: MovedOption = None,
    device: Annotated[str, Option("--device", help="where patches are embedded: auto, cpu, cuda or mps")] = "auto",
    html: Annotated[Path | None, Option("--html", metavar="FILE", help="write a page with thumbnails instead of a table")] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Find the nearest patches of other slides; the index is made on first use.

    Example: pcam-ssl search runs/metric --id 0a1b2c --image patch.png -k 10 --html neighbours.html

    Example: pcam-ssl search runs/metric --slide patient_004 --at 3328,21792

    Example: pcam-ssl search runs/metric --id 0a1b2c --store gallery.db --only-split train
    """
    from pcam_ssl.api import rebuild_index, search
    from pcam_ssl.search.report import neighbours_text

    where = {"index": index, "backend": backend, "data": data, "device": device}
    if rebuild and store is None and not (ids or images or source or slide or at):
        folder = rebuild_index(run, **where)
        print(json.dumps({"index": str(folder)}) if as_json else f"{folder}: rebuilt")
        return
    result = search(
        run,
        ids or (),
        images=images or (),
        source=source,
        slide=slide,
        at=at,
        k=k,
        any_slide=any_slide,
        rebuild=rebuild,
        html=html,
        store=store,
        only_split=only_split or (),
        only_label=only_label or (),
        only_slide=only_slide or (),
        **where,
    )
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    elif html is None:
        print(neighbours_text(result))
    else:
        asked = f"{len(result):,} queries with their" if len(result) > 1 else "1 query with its"
        print(f"{html}: {asked} nearest {k} of {result.facts['gallery']:,} patches")


def index(
    run: Annotated[Path, Argument(metavar="RUN", help="a finished run with a refit network, or a folder of `pcam-ssl embed`")],
    store: Annotated[
        str, Option("--store", metavar="URI", help="a milvus-lite file NAME.db, or a Milvus server: http://HOST:19530/DATABASE")
    ],
    index: Annotated[
        str | None,
        Option(
            "--index",
            metavar="TYPE",
            help="FLAT (exact, the default), IVF_FLAT, IVF_SQ8, HNSW or AUTOINDEX, as far as the store has it",
        ),
    ] = None,
    rebuild: Annotated[bool, Option("--rebuild", help="drop what the store holds of RUN, and load it anew")] = False,
    data: MovedOption = None,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, Option("--json", help="print what was loaded as JSON")] = False,
) -> None:
    """Load the gallery of a run into a vector database (extra: pcam-ssl[milvus]); after a kill it goes on where it stopped.

    Example: pcam-ssl index runs/metric --store gallery.db
    """
    from pcam_ssl.api import index as load

    facts = load(run, store=store, index=index, rebuild=rebuild, data=data, device=device)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    print(f"{facts['store']}: {facts['patches']:,} patches of {run}, {facts['sent']:,} sent now, index {facts['index']}")
    print(f"next: {shlex.join(['pcam-ssl', 'search', str(run), '--store', facts['store'], '--id', 'ID'])}")
