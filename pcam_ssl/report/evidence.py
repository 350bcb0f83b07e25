"""The parts of a report that need the run's networks: explanations, nearest labelled patches, and embedding maps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.explain.explain import explained
from pcam_ssl.neighbors.embedding_map import embedding_map, neighborhood_scores
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import SearchResult, count_left_out, search
from pcam_ssl.report.cases import Case, FoldMap, Pictures
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.runs.networks import Networks
from pcam_ssl.search.queries import by_id

MAPS, ON_MAPS = 3, 1500
"""The number of folds that get a map, and of patches on all maps together."""
GALLERY, GALLERIES = 2000, 5000
"""The largest number of labelled patches to search for neighbours, for one fold and for all folds together. Every fold embeds its own
gallery, and embedding the whole of a large dataset would take minutes."""
NEIGHBOURS = 4


def explain_cases(pictures: Pictures, networks: Networks, device: str = "auto") -> Pictures:
    """The pictures with an explanation of each patch by the fold that was not trained on it, or with the reason why there is none."""
    cases = {case.id: case for case in [*pictures.wrong, *pictures.unsure]}
    try:
        explanations = {each.id: each for each in explained(networks, cases, neighbours=0, device=device)}
    except UserError as error:
        return replace(pictures, no_explanations=error.problems[0])
    return replace(_each(pictures, lambda case: replace(case, explained=explanations[case.id])), no_explanations=None)


def lay_out(
    pictures: Pictures, scored: pd.DataFrame, networks: Networks, method: str = "pca", seed: int = 0, device: str = "auto"
) -> Pictures:
    """The pictures with the neighbours of each patch, and maps of the folds of lowest, middle and highest AUROC.

    `scored` are the labelled out-of-fold Predictions. Each fold uses its own embedding, since embeddings of different networks
    are not comparable. The maps hold only patches that the fold scored: training patches cluster by memorisation. Raises
    UserError where an embedding is not finite, and for an unknown `method`.
    """
    chosen = map_folds(scored, networks.finished)
    cases = [*pictures.wrong, *pictures.unsure]
    folds = sorted({case.fold for case in cases if case.fold in networks.finished} | set(chosen))
    visible = networks.folds.frame.id[networks.folds.frame.visible]
    gallery = _sample(visible, min(GALLERY, GALLERIES // len(folds)), seed)
    maps, found = [], {}
    for k in folds:
        mine = _sample(scored.id[scored.fold == k], ON_MAPS // len(chosen), seed) if k in chosen else []
        asked = [case.id for case in cases if case.fold == k]
        wanted = pd.Index([*mine, *gallery, *asked]).unique()
        embeddings = _embeddings(networks, k, wanted, device)
        if len(mine):
            maps.append(_fold_map(scored, k, chosen[k], mine, embeddings[wanted.get_indexer(mine)], method, seed))
        if asked:
            parts = [embeddings[wanted.get_indexer(ids)] for ids in (gallery, asked)]
            found |= _neighbours(networks, gallery, asked, *parts)
    among = f"among {len(gallery):,} labelled patches"
    if len(gallery) < len(visible):
        among = f"among {len(gallery):,} drawn from {len(visible):,} labelled patches (`pcam-ssl explain RUN --id ID` searches all)"
    pictures = _each(pictures, lambda case: _with(case, found.get(case.id, []), networks))
    return replace(pictures, maps=maps, no_maps=None, asked=among)


def map_folds(scored: pd.DataFrame, finished: tuple[int, ...]) -> dict[int, float | None]:
    """AUROC by fold of the folds that get a map: all if there are at most `MAPS`, else those of lowest, middle and highest AUROC."""
    from pcam_ssl.evaluation.metrics import auroc

    scores = {k: auroc(rows.label.to_numpy(np.int64), rows.prob) for k, rows in scored.groupby("fold") if k in finished}
    ordered = sorted(scores, key=lambda k: (scores[k] is None, scores[k] or 0, k))
    known = sum(score is not None for score in scores.values())
    last = max(known, 1) - 1
    kept = ordered if len(ordered) <= MAPS else [ordered[0], ordered[last // 2], ordered[last]]
    return {int(k): scores[k] for k in sorted(set(kept))}


def _sample(ids: pd.Series, n: int, seed: int) -> list[str]:
    drawn = np.random.default_rng(seed).choice(len(ids), min(len(ids), n), replace=False)
    return ids.iloc[np.sort(drawn)].tolist()


def _embeddings(networks: Networks, k: int, ids: pd.Index, device: str) -> np.ndarray:
    rows = pd.Index(networks.dataset.patches.id).get_indexer(ids)
    return run_embedder(networks.run, k, device).embed(Pixels(networks.dataset.path / PIXELS), rows, f"fold-{k} map", workers=0)


def _fold_map(
    scored: pd.DataFrame, k: int, score: float | None, ids: list[str], embeddings: np.ndarray, method: str, seed: int
) -> FoldMap:
    rows = scored.set_index("id").loc[ids]
    labels, known = rows.label.to_numpy(np.int64), rows.wsi.notna().all()
    slides = rows.wsi.tolist() if known else [None] * len(rows)
    return FoldMap(
        fold=k,
        auroc=score,
        places=embedding_map(embeddings, method, seed),
        labels=labels,
        slides=slides,
        of=int((scored.fold == k).sum()),
        method=method,
        neighborhood=neighborhood_scores(embeddings, labels, slides if known else None),
    )


def _neighbours(
    networks: Networks, gallery: list[str], asked: list[str], embeddings: np.ndarray, queries: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """The nearest gallery patches of other slides, by the id of the query."""
    dataset = networks.dataset
    known = dataset.patches.assign(prob=dataset.patches.id.map(networks.scored().prob)).set_index("id", drop=False)
    index = build_index(embeddings, known.loc[gallery].reset_index(drop=True))
    table = by_id(asked, dataset, known.reset_index(drop=True)).table
    excluded = leave_out(index, table)
    similarity, rows = search(index, queries, min(NEIGHBOURS, len(index)), excluded, table.id)
    result = SearchResult({}, table, index.table, similarity, rows, count_left_out(index, table, excluded))
    return {each["id"]: each["neighbours"] for each in result.each()}


def _with(case: Case, neighbours: list[dict[str, Any]], networks: Networks) -> Case:
    places = pd.Index(networks.dataset.patches.id).get_indexer([each["id"] for each in neighbours])
    pixels = [np.asarray(networks.dataset.pixels[place]) for place in places]
    return replace(case, neighbours=neighbours, neighbour_pixels=pixels)


def _each(pictures: Pictures, change) -> Pictures:
    return replace(pictures, wrong=[change(case) for case in pictures.wrong], unsure=[change(case) for case in pictures.unsure])
