"""`pcam-ssl search`: the nearest patches, as a table, JSON, or a page."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def search(
    run: Annotated[Path, Argument(metavar="RUN", help="a finished run with a refit network, or a folder of `pcam-ssl embed`")],
    ids: Annotated[list[str] | None, Option("--id", metavar="ID", help="a patch of the run's dataset; repeatable")] = None,
    images: Annotated[list[Path] | None, Option("--image", metavar="FILE", help="an image of a patch; repeatable")] = None,
    source: Annotated[
        Path | None, Option("--source", help="all patches of a DATASET, or of anything `pcam-ssl data import` reads")
    ] = None,
    k: Annotated[int, Option("-k", help="neighbours of each query")] = 10,
    any_slide: Annotated[bool, Option("--any-slide", help="also find patches of the query's own slide")] = False,
    index: Annotated[str | None, Option("--index", metavar="FACTORY", help="FAISS factory string (default: exact)")] = None,
    rebuild: Annotated[bool, Option("--rebuild", help="make RUN/index anew; needs no query")] = False,
    backend: Annotated[str, Option("--backend", help="where FAISS searches: auto, cpu or gpu")] = "auto",
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the run's dataset, where it has moved")] = None,
    device: Annotated[str, Option("--device", help="where patches are embedded: auto, cpu, cuda or mps")] = "auto",
    html: Annotated[Path | None, Option("--html", metavar="FILE", help="write a page with thumbnails instead of a table")] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """Find the nearest patches of other slides; the index is made on first use.

    Example: pcam-ssl search runs/metric --id 0a1b2c --image patch.png -k 10 --html neighbours.html
    """
    from pcam_ssl.errors import UserError
    from pcam_ssl.search.report import neighbours_text
    from pcam_ssl.search.search import search_space

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: choose auto, cpu, cuda or mps")
    result = search_space(
        run,
        ids=ids or [],
        images=images or [],
        source=source,
        k=k,
        any_slide=any_slide,
        factory=index,
        rebuild=rebuild,
        backend=backend,
        data=data,
        device=device,
        html=html,
    )
    if result is None:
        print(json.dumps({"index": str(run / "index")}) if as_json else f"{run / 'index'}: rebuilt")
        return
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    elif html is None:
        print(neighbours_text(result))
    else:
        asked = f"{len(result):,} queries with their" if len(result) > 1 else "1 query with its"
        print(f"{html}: {asked} nearest {k} of {result.facts['gallery']:,} patches")
