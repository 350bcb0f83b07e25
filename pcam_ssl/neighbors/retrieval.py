"""Retrieval scores: precision@1, R-precision, MAP@R (Musgrave et al. 2020, arXiv:2003.08505), CMC@5.

Each patch is a query against all others; R is the number of others of its class. Precision@1: the nearest is of its class.
R-precision: the share of its class among the R nearest. MAP@R: mean over the first R ranks i of precision at i where rank i
is of its class, else 0. CMC@5 (cumulative match characteristic, Gray et al. 2007): one of the five nearest is of its class.
`all_slides` searches all other patches, `across_slides` only those of other slides (R too), as for a patch of a new slide.
"""

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.confidence import SHARE
from pcam_ssl.evaluation.resampled_sums import mean_intervals
from pcam_ssl.neighbors.faiss_index import unit_rows

MEASURES = ("precision_at_1", "r_precision", "map_at_r", "cmc_at_5")
SCOPES = ("all_slides", "across_slides")
COLUMNS = {f"{measure}_{scope}": "float64" for scope in SCOPES for measure in MEASURES}
PAIRS = 2**29
"""Above this many similarities the queries are sampled. All are queries up to 23,170 patches, about a minute on one core."""

BLOCK = 2**22


def retrieval_scores(
    embeddings, labels, slides=None, *, ids=None, pairs: int = PAIRS, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict:
    """The measures with slide-clustered bootstrap intervals, from embeddings [N, D], labels [N] 0 or 1, and slides [N] or None.

    {"all_slides": {measure: {"value", "low", "high", "resamples"}, "queries": n}, "across_slides": the same or None,
    "patches": N, "sampled": whether queries were a seeded sample because N * N is above `pairs`, "queried": number of queries,
    "reason": why `across_slides` is None}. A query without other patches of its class has no score and is not counted in `queries`.
    Raises UserError for embeddings that are NaN, infinite, or zero.
    """
    per_query = query_scores(embeddings, labels, slides, ids=ids, pairs=pairs, seed=seed)
    scores = {"patches": len(labels), "sampled": len(per_query) < len(labels), "queried": len(per_query)}
    return {**scores, **summarise(per_query, resamples, seed, level)}


def summarise(per_query: pd.DataFrame, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> dict:
    """Means and intervals of the rows of `query_scores`, which may come from several folds."""
    summary = {}
    for scope in SCOPES:
        columns = [f"{measure}_{scope}" for measure in MEASURES]
        defined = per_query[per_query[columns[0]].notna()]
        summary[scope] = None
        if len(defined):
            entries = mean_intervals(defined[columns].to_numpy(), _slide_names(defined["wsi"]), resamples, seed, level, SHARE)
            summary[scope] = {**dict(zip(MEASURES, entries, strict=True)), "queries": len(defined)}
    if summary["across_slides"] is None:
        known = per_query["wsi"].notna().any()
        summary["reason"] = "no patch has a patch of its class on another slide" if known else "no slides known"
    return summary


def _slide_names(slides: pd.Series):
    return slides if slides.notna().any() else None


def query_scores(embeddings, labels, slides=None, *, ids=None, pairs: int = PAIRS, seed: int = 0) -> pd.DataFrame:
    """The measures of each query: `row`, `wsi`, and float64 columns `<measure>_<scope>`, NaN where the query has no score.

    Every patch is a query up to N * N = `pairs`; above, a seeded sample is, each ranked against all N. Memory holds
    the unit vectors and one block of similarities. Equal similarities are ranked in a seeded random order, because
    the rows may be sorted by class. Patches of unknown slide are not part of `across_slides`.
    """
    labels = np.asarray(labels)
    n = len(labels)
    slides = pd.array([None] * n if slides is None else slides, dtype="str")
    codes = pd.factorize(slides)[0]
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(n)
    unit = unit_rows(embeddings, ids, out=np.empty(embeddings.shape, np.float32), places=np.argsort(shuffled))
    labels, codes = labels[shuffled], codes[shuffled]
    places = np.sort(rng.permutation(n)[: min(n, max(1, pairs // n))])
    step = max(1, BLOCK // n)
    measured = np.concatenate(
        [_ranked(unit, labels, codes, places[start : start + step]) for start in range(0, len(places), step)]
    )  # [Q, scope * measure]
    names = [f"{measure}_{scope}" for scope in SCOPES for measure in MEASURES]
    rows = shuffled[places]
    table = pd.DataFrame({"row": rows, "wsi": slides[rows]}).join(pd.DataFrame(measured, columns=names))
    return table.sort_values("row", ignore_index=True)


def _ranked(unit: np.ndarray, labels: np.ndarray, codes: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Measures [Q, scope * measure] of the queries at these places."""
    similarity = unit[queries] @ unit.T
    measured = np.full((len(queries), len(SCOPES), len(MEASURES)), np.nan)
    for i, query in enumerate(queries):
        order = np.argsort(-similarity[i], kind="stable")
        order = order[order != query]
        same = labels[order] == labels[query]
        measured[i, 0] = relevance_measures(same)
        if codes[query] >= 0:
            other = codes[order]
            measured[i, 1] = relevance_measures(same[(other >= 0) & (other != codes[query])])
    return measured.reshape(len(queries), -1)


def relevance_measures(same: np.ndarray) -> tuple[float, ...]:
    """`MEASURES` of one query from `same`, bool, nearest first: whether each other patch is of its class. NaN where none is."""
    r = int(same.sum())
    if not r:
        return (np.nan,) * len(MEASURES)
    hits = np.flatnonzero(same[:r])
    precision = np.arange(1, len(hits) + 1) / (hits + 1)
    return float(same[0]), len(hits) / r, precision.sum() / r, float(same[:5].any())
