"""`pcam-ssl search`: the nearest patches of other slides, for patches by id, image files, or a whole source."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.importing import open_source
from pcam_ssl.errors import UserError
from pcam_ssl.files import PAGE, check_target
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import EmbeddingIndex
from pcam_ssl.neighbors.search import SearchResult, count_left_out, search
from pcam_ssl.runs.embedder import Embedder
from pcam_ssl.search.gallery import EmbeddingSpace, open_embedding_space, open_gallery
from pcam_ssl.search.queries import Loaded, Queries, by_id, by_image, by_source
from pcam_ssl.search.report import write_neighbours_page

MOST_ON_A_PAGE = 200


def search_space(
    folder: Path | str,
    *,
    ids: Iterable[str] = (),
    images: Iterable[Path] = (),
    source: Path | str | None = None,
    k: int = 10,
    any_slide: bool = False,
    factory: str | None = None,
    rebuild: bool = False,
    backend: str = "auto",
    data: Path | str | None = None,
    device: str = "auto",
    html: Path | str | None = None,
) -> SearchResult | None:
    """The k nearest gallery patches of each query; None where there are no queries and the index was only rebuilt.

    `folder` is a run, whose gallery is its whole dataset, or a folder of `pcam-ssl embed`. Patches of a query's own slide are excluded
    unless `any_slide`; where slides are unknown, its duplicates are. `html` also writes a page.
    Raises UserError for a folder, query or index that cannot be used.
    """
    if not (ids or images or source or rebuild):
        raise UserError("search: nothing to search for; name --id ID, --image FILE or --source SOURCE")
    if k < 1:
        raise UserError(f"-k {k}: ask for one neighbour or more")
    if html is not None:
        check_target("--html", html, *PAGE)
    space = open_embedding_space(folder, data, device)
    with ExitStack() as opened:
        parts = _queries(space, list(ids), list(images), source, opened)
        n = sum(len(part.table) for part in parts)
        if html is not None and n > MOST_ON_A_PAGE:
            raise UserError(f"--html: a page shows at most {MOST_ON_A_PAGE} queries, these are {n:,}; take --json, or fewer")
        embedder = space.embedder()
        gallery = open_gallery(space, embedder, factory, rebuild, backend)
        if not parts:
            return None
        result = _search(space, gallery, embedder, parts, k, any_slide)
        if html is not None:
            write_neighbours_page(html, result, *_patches(space, result, parts))
    return result


def _queries(
    space: EmbeddingSpace, ids: list[str], images: list[Path], source: Path | str | None, opened: ExitStack
) -> list[Queries]:
    size_px, parts = space.dataset.size_px, []
    if ids:
        parts.append(by_id(ids, space.dataset, space.gallery))
    if images:
        parts.append(by_image(images, size_px))
    if source is not None:
        parts.append(by_source(opened.enter_context(open_source(source)), source, size_px))
    return parts


def _search(
    space: EmbeddingSpace, gallery: EmbeddingIndex, embedder: Embedder, parts: list[Queries], k: int, any_slide: bool
) -> SearchResult:
    queries = pd.concat([part.table for part in parts], ignore_index=True)
    embeddings = np.concatenate(
        [embedder.embed(p.pixels, p.rows, "queries", workers=0 if isinstance(p.pixels, Loaded) else None) for p in parts]
    )
    excluded = leave_out(gallery, queries, any_slide)
    similarity, rows = search(gallery, embeddings, k, excluded, queries["id"].fillna(queries["image"]))
    left_out = count_left_out(gallery, queries, excluded)
    return SearchResult(_facts(space, gallery, k, any_slide), queries, gallery.table, similarity, rows, left_out)


def _facts(space: EmbeddingSpace, gallery: EmbeddingIndex, k: int, any_slide: bool) -> dict[str, Any]:
    notes = gallery.notes
    index = {"factory": notes.factory, "parameters": notes.parameters, "exact": gallery.exact, "created": notes.created}
    return {
        "run": str(space.folder),
        "network_digest": space.network_digest,
        "dataset": str(space.dataset.path),
        "dataset_digest": space.dataset.digest,
        "gallery": len(gallery),
        "index": index,
        "backend": {"name": gallery.backend.name, "reason": gallery.backend.reason},
        "k": k,
        "any_slide": any_slide,
    }


def _patches(space: EmbeddingSpace, result: SearchResult, parts: list[Queries]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Pixels uint8 [H, W, 3] of each query, and of its neighbours."""
    queries = [part.patch(n) for part in parts for n in range(len(part.table))]
    places = pd.Index(space.dataset.patches.id)
    found = [places.get_indexer(pd.Index(result.gallery.id.iloc[rows[rows >= 0]])) for rows in result.rows]
    return queries, [[np.asarray(space.dataset.pixels[row]) for row in rows] for rows in found]
