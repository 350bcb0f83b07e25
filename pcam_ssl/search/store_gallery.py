"""`pcam-ssl index`: the gallery of a run in a vector database; and its search, with all filters on the server.

The vectors are in the database; the table of patches stays that of the dataset. A collection is named by digests of network, dataset
and patches, so one database holds the galleries of many runs, and none is taken for another.
"""

import json
import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.writer import check_space
from pcam_ssl.errors import UserError, nearest
from pcam_ssl.files import digest_text
from pcam_ssl.neighbors.exclusion import Exclusion
from pcam_ssl.neighbors.faiss_index import unit_rows
from pcam_ssl.neighbors.gallery_table import GalleryTable
from pcam_ssl.neighbors.index import COLUMNS
from pcam_ssl.search.gallery import EmbeddingSpace, open_embedding_space
from pcam_ssl.search.store import (
    EXACT,
    INDEXES,
    LITE_INDEXES,
    MOST_NEIGHBOURS,
    REQUEST_BYTES,
    Store,
    is_server,
    open_store,
    search_parameters,
)
from pcam_ssl.tables import conform
from pcam_ssl.terminal import say

PREFIX = "pcam_ssl_"
FORMAT = 1
BLOCK = 2**13
"""Patches that are looked up, embedded and sent together."""
PATCH_BYTES = 300
"""What a patch takes in a file of milvus-lite, beside its vector."""
NAMED = 3


@dataclass(frozen=True)
class Only:
    """What neighbours must be; an empty list asks for nothing."""

    split: Sequence[str] = ()
    label: Sequence[int] = ()
    slide: Sequence[str] = ()

    def to_dict(self) -> dict[str, list]:
        return {name: list(values) for name, values in vars(self).items() if values}


@dataclass(frozen=True)
class StoreGallery(GalleryTable):
    """A gallery whose vectors are in a collection of a store."""

    store: Store
    collection: str
    table: pd.DataFrame
    """`COLUMNS`, by row."""
    dimension: int
    index: str
    created: str

    @property
    def facts(self) -> dict[str, Any]:
        """As of `EmbeddingIndex.facts`."""
        parameters = {} if self.store.file else search_parameters(self.index, len(self), 1)
        index = {"factory": self.index, "parameters": parameters, "exact": self.index == EXACT, "created": self.created}
        return {"index": index, "backend": {"name": self.store.name, "reason": self.store.uri}}


def load_gallery(
    folder: Path | str,
    uri: str,
    *,
    index: str | None = None,
    rebuild: bool = False,
    data: Path | str | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Load the gallery of a run or of a folder of `pcam-ssl embed` into the store `uri`; what is there already is not sent again.

    `index` is one of `INDEXES` (of `LITE_INDEXES` in a file), by default the exact one. `rebuild` first drops what the store holds of this gallery. Returns facts: the
    store, the collection, its index, how many patches it holds and how many were sent. Raises UserError where folder or store cannot be
    used.
    """
    known = INDEXES if is_server(uri) else LITE_INDEXES
    if index is not None and index not in known:
        raise UserError(f"--index {index}: is no index of the store; choose from {', '.join(known)}")
    space = open_embedding_space(folder, data, device)
    with open_store(uri, make=True) as store:
        embedder = space.embedder() if space.embeddings is None else None
        dimension = embedder.dimension if embedder else space.embeddings.shape[1]
        name, n = collection_of(space), len(space.gallery)
        held = _prepare(store, space, name, dimension, index, rebuild)
        if held < n:
            if store.file is not None:
                check_space(
                    store.file.parent, (n - held) * (4 * dimension + PATCH_BYTES), "free some, or name a file on another disk"
                )
            say(f"{store.uri}: loading {n - held:,} patches" + (f"; {held:,} are there" if held else ""))
            _send(store, space, name, embedder)
            _check_count(store, space, name)
        index = store.describe(name)[2]
        return {"store": store.uri, "collection": name, "index": index, "patches": n, "sent": n - held, **_digests(space)}


def _prepare(store: Store, space: EmbeddingSpace, name: str, dimension: int, index: str | None, rebuild: bool) -> int:
    """Make the collection and its index where they are not there; returns how many patches it holds."""
    there = name in store.collections()
    if there and rebuild:
        store.drop(name)
        there = False
    if not there:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        described = {"run": str(space.folder), **_digests(space), "patches": len(space.gallery), "created": created}
        store.create(name, {"format": FORMAT, **described}, dimension)
    found = _checked(store, space, name, dimension)
    if found is not None and index not in (None, found):
        raise UserError(
            f"--store {store.uri}: its index is {found}, not {index}; leave --index out, or load it anew with "
            f"`{_command(space, store, index)} --rebuild`"
        )
    if found is None:
        try:
            store.create_index(name, index or EXACT, len(space.gallery))
        except UserError:
            if not there:
                store.drop(name)
            raise
    store.load(name)
    return store.count(name)


def _send(store: Store, space: EmbeddingSpace, name: str, embedder) -> None:
    codes = StoreGallery(store, name, space.gallery, 0, EXACT, "").slide_codes
    for start in range(0, len(space.gallery), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(space.gallery)))
        rows = np.setdiff1d(rows, store.rows(name, start, start + BLOCK))
        if not len(rows):
            continue
        patches = space.gallery.iloc[rows]
        if embedder is None:
            vectors = space.embeddings[rows]
        else:
            vectors = embedder.embed(Pixels(space.dataset.path / PIXELS), patches.row.to_numpy())
        vectors = unit_rows(np.asarray(vectors), patches.id.to_numpy())
        step = max(1, REQUEST_BYTES // (4 * vectors.shape[1]))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            store.put(name, rows[part], patches.iloc[part], codes[rows[part]], vectors[part])
        say(f"{store.uri}: {rows[-1] + 1:,} of {len(space.gallery):,} patches")


def open_store_gallery(space: EmbeddingSpace, store: Store, dimension: int) -> StoreGallery:
    """The gallery of `space` in a store. Raises UserError where the store has none, one of another dimension, or only a part of it."""
    name = collection_of(space)
    if name not in store.collections():
        raise UserError(
            f"--store {store.uri}: holds no gallery of {space.folder} (network {space.network_digest[:12]}, dataset "
            f"{space.dataset.digest[:12]}){_others(store)}; load it with `{_command(space, store)}`"
        )
    index = _checked(store, space, name, dimension)
    if index is None:
        raise _half(store, space, 0)
    store.load(name)
    _check_count(store, space, name)
    facts = store.describe(name)[0]
    table = conform(space.gallery.reindex(columns=list(COLUMNS)), COLUMNS)
    say(f"search: {len(table):,} patches, index {index}, store {store.uri}")
    return StoreGallery(store, name, table, dimension, index, str(facts.get("created")))


def collection_of(space: EmbeddingSpace) -> str:
    """The name of the collection of a gallery, which depends on network, dataset, the patches and the precision of saved embeddings."""
    dtype = "float32" if space.embeddings is None else str(space.embeddings.dtype)
    parts = [space.network_digest, space.dataset.digest, dtype, digest_text("\n".join(space.gallery["id"]))]
    return PREFIX + digest_text(" ".join(parts))[:32]


def search_store(
    gallery: StoreGallery, embeddings: np.ndarray, k: int, exclude: Exclusion, only: Only, query_ids=None
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest patches of queries [Q, D] as `neighbors.search.search` gives them: similarity float32 [Q, k], row int64 [Q, k].

    What `exclude` names is left out on the server, and no more than k neighbours of a query come back. Queries that leave out the same
    are asked together. Cosines are those of the server: equal to ours up to rounding, so neighbours closer than that may swap.
    Raises UserError for k that does not fit, zero or non-finite queries, and filters that name what the gallery does not have.
    """
    most = min(len(gallery), MOST_NEIGHBOURS)
    if not 1 <= k <= most:
        raise UserError(f"k {k:,} does not fit a gallery of {len(gallery):,} patches in a store; choose k from 1 to {most:,}")
    asked = _expressions(gallery, only)
    unit = unit_rows(embeddings, None if query_ids is None else np.asarray(query_ids))
    groups = defaultdict(list)
    for query, (slide, rows) in enumerate(zip(exclude.slide_codes, exclude.rows, strict=True)):
        left_out = [f"slide != {slide}"] if slide >= 0 else []
        left_out += [f"row not in {rows.tolist()}"] if len(rows) else []
        groups[" and ".join(asked + left_out)].append(query)
    similarity = np.full((len(unit), k), -np.inf, dtype=np.float32)
    rows = np.full((len(unit), k), -1, dtype=np.int64)
    params = search_parameters(gallery.index, len(gallery), k)
    for where, queries in groups.items():
        similarity[queries], rows[queries] = gallery.store.search(gallery.collection, unit[queries], k, where, params)
    order = np.lexsort((rows, -similarity), axis=1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _expressions(gallery: StoreGallery, only: Only) -> list[str]:
    """The filters as expressions of Milvus, by numbers where it can be: a slide's name may hold what an expression cannot."""
    problems, known = [], {"split": set(gallery.table["split"].dropna()), "slide": set(gallery.slides), "label": {0, 1}}
    for name, values in only.to_dict().items():
        for value in values:
            if value not in known[name]:
                close = nearest(str(value), known[name]) or f" It has {', '.join(map(str, sorted(known[name])[:NAMED]))}"
                problems.append(f"--only-{name} {value}: the gallery has no such {name}.{close}")
    if problems:
        raise UserError(*problems)
    codes = {int(code) for code in gallery.codes_of(list(only.slide))} if only.slide else ()
    numbers = {"split": sorted(only.split), "label": sorted(only.label), "slide": sorted(codes)}
    # Milvus reads lists as JSON writes them.
    return [f"{name} in {json.dumps(values, ensure_ascii=False)}" for name, values in numbers.items() if values]


def _checked(store: Store, space: EmbeddingSpace, name: str, dimension: int) -> str | None:
    """The type of a collection's index. Raises UserError where the collection is not this gallery's, or of another dimension."""
    facts, held, index = store.describe(name)
    if {key: facts.get(key) for key in _digests(space)} != _digests(space):
        raise UserError(
            f"--store {store.uri}: its collection {name} is not one that pcam-ssl made of {space.folder}; "
            f"load it anew with `{_command(space, store)} --rebuild`"
        )
    if held != dimension:
        raise UserError(
            f"--store {store.uri}: holds vectors of {held:,} values of {space.folder}, whose network gives {dimension:,}; "
            f"load it anew with `{_command(space, store)} --rebuild`"
        )
    return index


def _check_count(store: Store, space: EmbeddingSpace, name: str) -> None:
    held, n = store.count(name), len(space.gallery)
    if held < n:
        raise _half(store, space, held)
    if held > n:
        raise UserError(
            f"--store {store.uri}: holds {held:,} patches of {space.folder}, which has {n:,}; "
            f"load it anew with `{_command(space, store)} --rebuild`"
        )


def _half(store: Store, space: EmbeddingSpace, held: int) -> UserError:
    return UserError(
        f"--store {store.uri}: half loaded ({held:,} of {len(space.gallery):,} patches of {space.folder}); "
        f"finish it with `{_command(space, store)}`"
    )


def _others(store: Store) -> str:
    """Which other galleries a store holds."""
    facts = [store.describe(name)[0] for name in store.collections() if name.startswith(PREFIX)]
    named = [
        f"{each.get('run')} (network {str(each.get('network_digest'))[:12]}, dataset {str(each.get('dataset_digest'))[:12]})"
        for each in facts[:NAMED]
    ]
    return f" but {'of ' if named else 'nothing'}{', '.join(named)}{' and others' if len(facts) > NAMED else ''}"


def _digests(space: EmbeddingSpace) -> dict[str, str]:
    return {"network_digest": space.network_digest, "dataset_digest": space.dataset.digest}


def _command(space: EmbeddingSpace, store: Store, index: str | None = None) -> str:
    chosen = ["--index", index] if index else []
    return shlex.join(["pcam-ssl", "index", str(space.folder), "--store", store.uri, *chosen])
