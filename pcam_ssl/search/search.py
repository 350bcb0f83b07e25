"""`pcam-ssl search`: the nearest patches of other slides, for patches by id, image files, or a whole source."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.distributed import join_world
from pcam_ssl.errors import UserError
from pcam_ssl.files import PAGE, check_target, digest_text
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import COLUMNS, EmbeddingIndex
from pcam_ssl.neighbors.search import SearchResult, count_left_out, search
from pcam_ssl.render.document import Block, Card, Gallery, Preformatted
from pcam_ssl.render.format import LABELS
from pcam_ssl.render.html import picture, shorten
from pcam_ssl.runs.embedder import Embedder
from pcam_ssl.runs.shared_work import kept_work, shared_source
from pcam_ssl.search.gallery import EmbeddingSpace, open_embedding_space, open_gallery
from pcam_ssl.search.queries import Loaded, Queries, at_place, by_id, by_image, by_source
from pcam_ssl.search.report import neighbours_text, write_neighbours_page
from pcam_ssl.search.store import open_store
from pcam_ssl.search.store_gallery import Only, StoreGallery, open_store_gallery, search_store
from pcam_ssl.tables import conform

MOST_ON_A_PAGE = 200
KEPT_FROM = 4096
"""Queries of a source whose embeddings are kept on the disk while they are made."""
NOTHING_ASKED = "search: nothing to search for; name --id ID, --slide S --at X,Y, --image FILE or --source SOURCE"


@dataclass(frozen=True, repr=False)
class Found(SearchResult):
    """A SearchResult that can show its patches."""

    dataset: Dataset
    """The gallery's."""
    query_pixels: list[np.ndarray]
    """uint8 [H, W, 3] of each query; empty for more than a page shows."""

    def each(self) -> Iterator[dict[str, Any]]:
        """As of SearchResult, with `x` and `y` of queries and neighbours, None where unknown."""
        # Of the patches that are shown alone: a dataset may hold hundreds of thousands.
        found = self.gallery.id.iloc[np.unique(self.rows[self.rows >= 0])]
        patches = self.dataset.patches
        shown = patches[patches.id.isin(pd.concat([found, self.queries.id]))]
        places = {id: (x, y) for id, x, y in zip(shown.id, shown.x.tolist(), shown.y.tolist(), strict=True)}

        def placed(patch: dict[str, Any]) -> dict[str, Any]:
            x, y = (None if pd.isna(value) else value for value in places.get(patch["id"], (None, None)))
            return {**patch, "x": x, "y": y}

        for query in super().each():
            yield {**placed(query), "neighbours": [placed(near) for near in query["neighbours"]]}

    @property
    def table(self) -> pd.DataFrame:
        """A row a neighbour: query (id or image), rank, cosine, id, label, prob, wsi, split."""
        lines = [{"query": each["id"] or each["image"], **near} for each in self.each() for near in each["neighbours"]]
        return pd.DataFrame(lines, columns=["query", "rank", "cosine", "id", "label", "prob", "wsi", "split"])

    def neighbour_pixels(self, query: int) -> list[np.ndarray]:
        """Pixels uint8 [H, W, 3] of the neighbours of a query, the nearest first."""
        rows = self.rows[query]
        found = pd.Index(self.dataset.patches.id).get_indexer(pd.Index(self.gallery.id.iloc[rows[rows >= 0]]))
        return [np.asarray(self.dataset.pixels[row]) for row in found]

    def __repr__(self) -> str:
        return neighbours_text(self)

    def _repr_html_(self) -> str:
        from pcam_ssl.render.html import fragment

        return fragment(self.document())

    def document(self) -> list[Block]:
        """Each query and its neighbours side by side, with pictures; a table where there are more queries than a page shows."""
        if not self.query_pixels:
            return [Preformatted(repr(self))]
        blocks: list[Block] = []
        for number, each in enumerate(self.each()):
            name = str(each["id"] or each["image"])
            query = Card([picture(self.query_pixels[number], f"query {name}")], [shorten(name), "query", *_lines(each)])
            near = [
                Card([picture(pixels, f"neighbour {one['id']}")], [shorten(one["id"]), f"{one['cosine']:.3f}", *_lines(one)])
                for one, pixels in zip(each["neighbours"], self.neighbour_pixels(number), strict=True)
            ]
            blocks.append(Gallery([query, *near], "neighbours"))
        return blocks

    def show(self) -> None:
        """Show the patches in a notebook; elsewhere print the table."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            print(self)
            return
        if get_ipython() is None:
            print(self)
        else:
            display(self)


def _lines(patch: dict[str, Any]) -> list[str]:
    """What is known of a patch, a line each."""
    prob = "" if patch["prob"] is None else f"prob {patch['prob']:.2f}"
    return [line for line in (LABELS[patch["label"]], prob, patch["wsi"] or "") if line]


def search_space(
    folder: Path | str,
    *,
    ids: Iterable[str] = (),
    images: Iterable[Path] = (),
    source: Path | str | None = None,
    place: tuple[str, float, float] | None = None,
    k: int = 10,
    any_slide: bool = False,
    factory: str | None = None,
    rebuild: bool = False,
    backend: str = "auto",
    data: Path | str | None = None,
    device: str = "auto",
    html: Path | str | None = None,
    store: str | None = None,
    only: Only | None = None,
) -> Found | None:
    """The k nearest gallery patches of each query; None where there are no queries and the index was only rebuilt.

    `folder` is a run, whose gallery is its whole dataset, or a folder of `pcam-ssl embed`. Patches of a query's own slide are excluded
    unless `any_slide`; where slides are unknown, its duplicates are. `place` (slide, x, y) asks for the patch nearest to it. `html` also
    writes a page. `store` searches the vector database of that URI, which `pcam-ssl index` loaded, and finds what `only` allows.
    Raises UserError for a folder, query or index that cannot be used.
    """
    if not (ids or images or source or place or rebuild):
        raise UserError(NOTHING_ASKED)
    if k < 1:
        raise UserError(f"-k {k}: ask for one neighbour or more")
    if html is not None:
        check_target("--html", html, *PAGE)
    only = only or Only()
    _check_store(store, only, factory, rebuild, backend)
    world = join_world(device)
    space = world.run_on_all(lambda: open_embedding_space(folder, data, world))
    with ExitStack() as opened:
        dataset = None if source is None else opened.enter_context(shared_source(source, False, world))
        parts = world.run_on_all(lambda: _queries(space, ids, images, place, dataset, source))
        n = sum(len(part.table) for part in parts)
        if html is not None and n > MOST_ON_A_PAGE:
            raise world.agreed(
                UserError(f"--html: a page shows at most {MOST_ON_A_PAGE} queries, these are {n:,}; take --json, or fewer")
            )
        embedder = world.run_on_all(space.embedder)
        if store is None:
            gallery = open_gallery(space, embedder, factory, rebuild, backend)
        else:
            gallery = opened.enter_context(_stored(store, space, embedder))
        if not parts:
            return None
        result = _search(space, gallery, embedder, parts, k, any_slide, only)
        if html is not None and world.is_main:
            near = [result.neighbour_pixels(number) for number in range(len(result))]
            write_neighbours_page(html, result, result.query_pixels, near)
    return result


@contextmanager
def _stored(store: str, space: EmbeddingSpace, embedder: Embedder) -> Iterator[StoreGallery | None]:
    """Yield the gallery in a vector database, in the one process that searches it; None in the others."""
    with ExitStack() as opened:
        found: list[StoreGallery] = []
        embedder.world.run_on_main(
            lambda: found.append(open_store_gallery(space, opened.enter_context(open_store(store)), embedder.dimension))
        )
        yield found[0] if found else None


def _check_store(store: str | None, only: Only, factory: str | None, rebuild: bool, backend: str) -> None:
    """Raise UserError for options of one kind of index that are given with the other."""
    if store is None:
        problems = [f"--only-{name}: is a filter of a vector database; add --store URI" for name in only.to_dict()]
    else:
        problems = ["--index: is of FAISS; `pcam-ssl index` chooses the index of a store"] if factory else []
        problems += ["--rebuild: is of the index in memory; `pcam-ssl index --rebuild` loads a store anew"] if rebuild else []
        problems += ["--backend: is of FAISS; leave it out with --store"] if backend != "auto" else []
    if problems:
        raise UserError(*problems)


def _queries(
    space: EmbeddingSpace,
    ids: Iterable[str],
    images: Iterable[Path],
    place: tuple[str, float, float] | None,
    dataset: Dataset | None,
    source: Path | str | None,
) -> list[Queries]:
    size_px, parts = space.dataset.size_px, []
    if asked := [*ids, *([at_place(*place, space.dataset)] if place else [])]:
        parts.append(by_id(asked, space.dataset, space.gallery))
    if files := list(images):
        parts.append(by_image(files, size_px))
    if dataset is not None:
        parts.append(by_source(dataset, source, size_px))
    return parts


def _search(
    space: EmbeddingSpace,
    gallery: EmbeddingIndex | StoreGallery | None,
    embedder: Embedder,
    parts: list[Queries],
    k: int,
    any_slide: bool,
    only: Only,
) -> Found:
    """Embed the queries in all processes, and search in the one that has the gallery; all get what it found."""
    queries = pd.concat([part.table for part in parts], ignore_index=True)

    def searched(embeddings: np.ndarray) -> tuple[dict[str, Any], np.ndarray, np.ndarray, Any]:
        excluded = leave_out(gallery, queries, any_slide)
        names = queries["id"].fillna(queries["image"])
        if isinstance(gallery, StoreGallery):
            similarity, rows = search_store(gallery, embeddings, k, excluded, only, names)
        else:
            similarity, rows = search(gallery, embeddings, k, excluded, names)
        facts = _facts(space, gallery, k, any_slide) | ({"only": only.to_dict()} if only.to_dict() else {})
        return facts, similarity, rows, count_left_out(gallery, queries, excluded)

    with _embedded(space, embedder, parts) as embeddings:
        facts, similarity, rows, left_out = embedder.world.run_on_main(lambda: searched(embeddings))
    table = conform(space.gallery, COLUMNS) if gallery is None else gallery.table
    shown = parts if len(queries) <= MOST_ON_A_PAGE else []
    pixels = [part.patch(n) for part in shown for n in range(len(part.table))]
    return Found(facts, queries, table, similarity, rows, left_out, space.dataset, pixels)


@contextmanager
def _embedded(space: EmbeddingSpace, embedder: Embedder, parts: list[Queries]) -> Iterator[np.ndarray]:
    """Yield the embeddings of the queries `[Q, D]`."""
    with ExitStack() as opened:
        of_parts = [_part(space, embedder, part, opened) for part in parts]
        yield of_parts[0] if len(of_parts) == 1 else np.concatenate(of_parts)


def _part(space: EmbeddingSpace, embedder: Embedder, part: Queries, opened: ExitStack) -> np.ndarray:
    """Embeddings of queries of one kind. Those of a large source lie on the disk while they are made, so that a kill does not undo them."""
    world, kept = embedder.world, part.digest is not None and len(part.rows) >= KEPT_FROM
    if not kept or not world.run_on_main(lambda: os.access(space.folder, os.W_OK)):
        return embedder.embed(part.pixels, part.rows, "queries", workers=0 if isinstance(part.pixels, Loaded) else None)
    identity = {"network": embedder.digest, "dataset": part.digest, **embedder.computes}
    target = space.folder / f"queries-{digest_text(repr(identity))[:12]}"
    work = opened.enter_context(kept_work(target, f"queries of {space.folder}", identity, world))
    return embedder.fill(part.pixels, part.rows, work / "embeddings.npy", space.folder, label="queries")


def _facts(space: EmbeddingSpace, gallery: EmbeddingIndex | StoreGallery, k: int, any_slide: bool) -> dict[str, Any]:
    return {
        "run": str(space.folder),
        "network_digest": space.network_digest,
        "dataset": str(space.dataset.path),
        "dataset_digest": space.dataset.digest,
        "gallery": len(gallery),
        **gallery.facts,
        "k": k,
        "any_slide": any_slide,
    }
