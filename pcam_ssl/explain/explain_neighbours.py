"""The nearest labelled patches of other slides, in the embedding of the network that explains a patch."""

from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import EmbeddingIndex
from pcam_ssl.neighbors.search import search
from pcam_ssl.neighbors.search_result import SearchResult, count_left_out
from pcam_ssl.runs.embedder import Embedder, run_embedder, unit_digest
from pcam_ssl.runs.networks import Networks
from pcam_ssl.search.gallery import open_gallery
from pcam_ssl.search.queries import Queries
from pcam_ssl.search.space import Space

Found = tuple[list[dict[str, Any]], list[np.ndarray]]


def nearest_labelled(
    networks: Networks, queries: Queries, folds: list[int], patches: pd.DataFrame, k: int, device: str = "auto"
) -> list[Found]:
    """For each query its `k` neighbours as plain values, with their pixels, in the embedding of the fold in `folds`; none for `k` 0.

    The gallery is every patch whose label the run may use; its index is made once and kept in RUN/fold-K/index.
    `patches` are the dataset's, with `prob`.
    """
    found: list[Found] = [([], []) for _ in folds]
    for fold in sorted(set(folds)) if k else ():
        chosen = [n for n, each in enumerate(folds) if each == fold]
        part = Queries(queries.table.iloc[chosen].reset_index(drop=True), queries.pixels, queries.rows[chosen])
        for n, neighbours in zip(chosen, _of_fold(networks, part, fold, patches, k, device), strict=True):
            found[n] = neighbours
    return found


def _index(space: Space, embedder: Embedder) -> EmbeddingIndex:
    """The index kept beside the network; one that is damaged or of another network is made anew, since nothing else reads it."""
    try:
        return open_gallery(space, embedder)
    except UserError:
        return open_gallery(space, embedder, rebuild=True)


def _of_fold(networks: Networks, queries: Queries, fold: int, patches: pd.DataFrame, k: int, device: str) -> list[Found]:
    dataset, folder = networks.dataset, networks.fold(fold)
    visible = networks.folds.frame.id[networks.folds.frame.visible]
    gallery = patches[patches.id.isin(visible)].reset_index(drop=True)
    embedder = run_embedder(networks.run, fold, device)
    space = Space(folder, dataset, unit_digest(folder), gallery, None, lambda: embedder)
    index = _index(space, embedder)
    embeddings = embedder.embed(queries.pixels, queries.rows, "queries", workers=0)
    excluded = leave_out(index, queries.table)
    similarity, rows = search(index, embeddings, min(k, len(index)), excluded, queries.table.id)
    result = SearchResult({}, queries.table, index.table, similarity, rows, count_left_out(index, queries.table, excluded))
    places = pd.Index(dataset.patches.id)
    return [
        (query["neighbours"], [np.asarray(dataset.pixels[places.get_loc(each["id"])]) for each in query["neighbours"]])
        for query in result.each()
    ]
