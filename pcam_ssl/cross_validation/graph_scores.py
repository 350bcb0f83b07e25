"""Predictions of a fold by label propagation: labels of its training patches spread over a graph of these and of its pool.

Scored patches are no nodes. They ask the nearest nodes, so a score depends on no other scored patch. With `graph.transductive` they are nodes
without a label, and read their own score: valid for labelling these patches, not for new slides.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from pcam_ssl.cross_validation.context import Fitted, RunContext, in_order
from pcam_ssl.cross_validation.neighbor_votes import calibrated_tables, embed_patches, patches_of
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import Folds, Unit, labelled_rows
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import NLL_ROUNDING
from pcam_ssl.models.network import Network
from pcam_ssl.neighbors.index import EmbeddingIndex, build_index
from pcam_ssl.neighbors.knn import binary_nll, no_choice
from pcam_ssl.neighbors.propagation import Graph, Propagated, graph_bytes
from pcam_ssl.neighbors.search import search
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.terminal import say

K, ALPHA, POWER = 50, 0.8, 3.0
"""For folds whose inner patches can choose none. k and power are those of Iscen et al. 2019; their alpha of 0.99 lost 0.04 in AUROC on
inner stain clusters of pcam-mini, and gained 0.002 on its valid split (one run)."""
KS, ALPHAS, POWERS = (10, 50, 100), (0.5, 0.8, 0.95), (1.0, 3.0)
WIDEST = 100.0


def graph_tables(context: RunContext, unit: Unit, fitted: Fitted, patches: dict[str, pd.DataFrame]) -> dict:
    """Calibrated Predictions of `patches` by propagation, named `inner-graph` and so on; `patches` as for `knn_tables`.

    k, alpha and the power of the weights are those of the recipe, or of the lowest NLL on inner patches, which ask the graphs of
    networks that did not learn from them. Returns {"tables", "facts": JSON values}.
    """
    choice, logits, nodes = _choose(context, unit, fitted)
    nodes = nodes or Nodes.of(context, unit, fitted.network, choice["k"])
    graph = nodes.graph(choice["k"], choice["power"])
    solved = graph.spread(choice["alpha"])
    scored = {"inner": logits}
    for name, table in patches.items():
        if name != "inner":
            read = _reader(context, fitted.network, nodes, table.id, choice["k"])
            scored[name] = read(solved, choice["k"], choice["scale"])
    tables, calibrator = calibrated_tables(context, unit, patches, scored)
    facts = {
        "choice": choice,
        "calibration": calibrator.to_dict(),
        "transductive": context.recipe.graph.transductive,
        "nodes": len(nodes.labels),
        "labelled": int((nodes.labels >= 0).sum()),
        "islands": graph.n_islands,
        "on_islands": int(graph.island.sum()),
        "steps": solved.steps,
    }
    if context.world.is_main:
        _say(unit, facts)
        _say_pool_of_test(context, unit)
    return {"tables": {f"{name}-graph": table for name, table in tables.items()}, "facts": facts}


def propagated_logits(context: RunContext, unit: Unit, network: Network, choice: dict, embeddings: np.ndarray) -> np.ndarray:
    """Logits `[n]` of patches with `embeddings` `[n, D]` by the network, by the unit's graph with the `choice` in the facts of `graph_tables`.

    They ask their nearest nodes, also where the graph is transductive.
    """
    nodes = Nodes.of(context, unit, network, choice["k"])
    solved = nodes.graph(choice["k"], choice["power"]).spread(choice["alpha"])
    return solved.logits_of(*nodes.nearest(embeddings, choice["k"]), choice["scale"])


def _say(unit: Unit, facts: dict) -> None:
    choice = facts["choice"]
    why = f" ({choice['reason']}: the defaults)" if choice["reason"] else ""
    text = (
        f"{unit.name}: graph of {facts['nodes']:,} patches, {facts['labelled']:,} of them labelled: k = {choice['k']},"
        f" alpha = {choice['alpha']:g}, power = {choice['power']:g}{why}"
    )
    if facts["islands"]:
        text += f"; {facts['on_islands']:,} patches in {facts['islands']:,} islands without a label have the share of tumor of the labels"
    say(text)


def _say_pool_of_test(context: RunContext, unit: Unit) -> None:
    """Say where the graph has no nodes beside the labels because the whole pool is scored."""
    options = context.recipe.graph
    if options.transductive or not options.pool:
        return
    pool = pool_rows(context.dataset, context.folds, unit)
    if len(pool) and (pool.split == "test").all():
        say(
            f"{unit.name}: its pool of {len(pool):,} patches is the test split, which is scored and so not in the graph: only labelled patches"
            " are nodes (graph.transductive=true adds what is scored)"
        )


@dataclass(frozen=True)
class Nodes:
    """The N patches of a unit's graph: first those it trains on, then those without a label. Neighbours are found once, for every k up to K."""

    index: EmbeddingIndex
    ids: pd.Index
    """Of all nodes."""
    mean: np.ndarray
    """float32 `[D]`: the nodes' mean embedding. Cosines are of embeddings without it, since pooled features all point one way."""
    labels: np.ndarray
    """int `[N]`: -1 for what the unit does not train on."""
    similarity: np.ndarray
    """Cosine float32 `[N, 1 + K]` of each node's nearest nodes, itself among them."""
    rows: np.ndarray
    """int64 `[N, 1 + K]`."""

    @classmethod
    def of(cls, context: RunContext, unit: Unit, network: Network, k: int) -> "Nodes":
        """The nodes of a unit in the embedding of its network, with their k nearest (all of them in a smaller graph)."""
        trained, others = node_rows(context.recipe, context.dataset, context.folds, unit)
        patches = pd.concat([trained, others], ignore_index=True)
        embeddings = embed_patches(context, network, patches)
        mean = embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        embeddings -= mean
        index = build_index(embeddings, patches[["id"]])
        labels = np.concatenate([trained.label.to_numpy(np.int64), np.full(len(others), -1)])
        similarity, rows = search(index, embeddings, min(1 + k, len(patches)), query_ids=patches.id)
        return cls(index, pd.Index(patches.id), mean, labels, similarity, rows)

    def graph(self, k: int, power: float) -> Graph:
        """The graph of each node's k nearest."""
        return Graph.of(self.similarity[:, : 1 + k], self.rows[:, : 1 + k], self.labels, power)

    def nearest(self, embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosine float32 `[Q, k]` and row int64 `[Q, k]` of the nodes nearest to other embeddings `[Q, D]`."""
        return search(self.index, embeddings - self.mean, min(k, len(self.labels)))


def node_rows(recipe: Recipe, dataset: Dataset, folds: Folds, unit: Unit) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The nodes of a unit's graph: the patches that it trains on, with labels, and others, with labels masked (NA).

    The others are its pool without the test split, which is scored. With `graph.transductive` also the test split and the patches that the
    unit or its fold scores or tunes on, so that inner patches are nodes of their network's graph as scored ones are of the fold's.
    """
    pool, rows = pool_rows(dataset, folds, unit), labelled_rows(dataset.patches)
    others = pool[(pool.split != "test") & recipe.graph.pool]
    if recipe.graph.transductive:
        scored = pd.concat([rows[unit.held_out], dataset.patches[dataset.patches.split == "test"]])
        scored = scored.assign(label=pd.array([pd.NA] * len(scored), dtype="Int8"))
        others = pd.concat([others, scored], ignore_index=True)
    return rows[unit.train], others


def widest(recipe: Recipe) -> int:
    """The largest k that may be chosen."""
    return max(KS) if recipe.graph.k == "inner" else recipe.graph.k


def check_graph(recipe: Recipe, dataset: Dataset, folds: Folds, unit: Unit) -> None:
    """Raises UserError where the graph of a unit or of its inner networks has too few patches for graph.k, or would not fit in memory."""
    k = widest(recipe)
    for each in (unit, *unit.parts):
        n = sum(map(len, node_rows(recipe, dataset, folds, each)))
        if recipe.graph.k != "inner" and k >= n:
            raise UserError(f"graph.k is {k}, the graph of {each.name} has {n} patches; lower graph.k to {n - 1} or less")
        needed, there = graph_bytes(n, min(k, n)), available_memory()
        if needed > there:
            less = max(1, int(k * there / needed))
            raise UserError(
                f"graph.k: a graph of {n:,} patches with {k} neighbours each takes {needed / 1e9:.1f} GB of memory, {there / 1e9:.1f} GB are"
                f" free; lower graph.k to {less}, or set graph.pool=false"
            )


def available_memory() -> int:
    """Bytes of memory that a program may take without swapping; all of the machine's where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _choose(context: RunContext, unit: Unit, fitted: Fitted) -> tuple[dict, np.ndarray, Nodes | None]:
    """k, alpha and power, from the recipe or chosen on inner patches; the logits of these patches `[n]`; the unit's nodes, where its own
    network scores the inner patches."""
    parts = [part for part, _ in fitted.inner]
    labels = context.rows.label.to_numpy(np.int64)[unit.inner]
    reason = no_choice(labels)
    grid = _grid(context.recipe, min(_count(context, part) for part in parts) - 1, reason is None)
    scored: dict[tuple, list] = {values: [] for values in product(*grid)}
    # One graph after the other, since each may fill much of the memory.
    for part, network in fitted.inner:
        nodes = Nodes.of(context, part, network, max(grid[0]))
        _score_inner(context, part, network, nodes, grid, scored)
    best, chosen = None, None
    for (k, alpha, power), found in scored.items():
        prior, logits = (in_order(parts, [pair[scale] for pair in found]) for scale in (0, 1))
        scale = 1.0 if reason else best_scale(prior, logits - prior, labels)
        logits = prior + scale * (logits - prior)
        loss = None if reason else binary_nll(labels, logits)
        if best is None or loss < best["nll"] - NLL_ROUNDING:
            best = {"k": k, "alpha": alpha, "power": power, "scale": scale, "nll": loss, "n": len(labels), "reason": reason}
            chosen = logits
    return best, chosen, nodes if parts[-1] is unit else None


def _score_inner(context: RunContext, part: Unit, network: Network, nodes: Nodes, grid: tuple, scored: dict[tuple, list]) -> None:
    """Append the logits `[n]` of a unit's inner patches at scale 0 and 1, for each of the values in `scored`."""
    ks, alphas, powers = grid
    read = _reader(context, network, nodes, context.rows.id[part.inner], max(ks))
    for k, power in product(ks, powers):
        graph = nodes.graph(k, power)
        for alpha in alphas:
            solved = graph.spread(alpha)
            scored[k, alpha, power].append([read(solved, k, scale) for scale in (0, 1)])


def _reader(
    context: RunContext, network: Network, nodes: Nodes, ids: pd.Series, most: int
) -> Callable[[Propagated, int, float], np.ndarray]:
    """`read(solved, k, scale)`: logits `[n]` of patches by a solved graph, k up to `most`. From their nearest nodes; from their own node in a transductive graph."""
    if context.recipe.graph.transductive:
        places = nodes.ids.get_indexer(ids)
        return lambda solved, k, scale: solved.logits(scale)[places]
    similarity, rows = nodes.nearest(embed_patches(context, network, patches_of(context, ids)), most)
    return lambda solved, k, scale: solved.logits_of(similarity[:, :k], rows[:, :k], scale)


def _count(context: RunContext, unit: Unit) -> int:
    """The number of nodes of a unit's graph."""
    return sum(map(len, node_rows(context.recipe, context.dataset, context.folds, unit)))


def best_scale(prior: np.ndarray, log_odds: np.ndarray, labels: np.ndarray) -> float:
    """The scale of lowest NLL for logits prior + scale x log-odds, all `[n]`, with labels 0 or 1; from 1/`WIDEST` to `WIDEST`.

    A temperature cannot stand in for it: it is drawn towards 1, and scales of F differ twentyfold between values of alpha.
    """
    found = minimize_scalar(
        lambda log_scale: binary_nll(labels, prior + np.exp(log_scale) * log_odds),
        bounds=(-np.log(WIDEST), np.log(WIDEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def _grid(recipe: Recipe, most: int, choose: bool) -> tuple[list[int], list[float], list[float]]:
    """The values of k (`most` at most), alpha and power to try; one of each where nothing can be chosen."""
    options = recipe.graph
    ks = [k for k in KS if k <= most] or [most]
    values = ((options.k, ks, min(K, most)), (options.alpha, ALPHAS, ALPHA), (options.power, POWERS, POWER))
    return tuple((list(grid) if choose else [default]) if value == "inner" else [value] for value, grid, default in values)
