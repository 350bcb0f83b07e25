"""Time and memory of label propagation on a synthetic graph, after the neighbours are known: python scripts/bench_graph.py"""

import argparse
import resource
import time

import numpy as np

from pcam_ssl.neighbors.propagation import Graph, graph_bytes

LABELLED = 1000


def main() -> None:
    options = _options()
    rng, n, k = np.random.default_rng(0), options.n, options.k
    # Random neighbours join all patches in a few steps; near ones, as in a ring, need as many steps as alpha asks for.
    rows = (
        rng.integers(0, n, (n, k))
        if options.near is None
        else (np.arange(n)[:, None] + rng.integers(-options.near, options.near, (n, k))) % n
    )
    similarity = rng.uniform(0.3, 0.9, (n, k)).astype(np.float32)
    labels = np.full(n, -1)
    labels[rng.permutation(n)[:LABELLED]] = np.arange(LABELLED) % 2
    before, begun = _peak(), time.perf_counter()
    graph = Graph.of(similarity, rows, labels, 3.0)
    built = time.perf_counter()
    steps = graph.spread(options.alpha).steps
    print(
        f"{n:,} nodes, k = {k}, alpha = {options.alpha:g}: built in {built - begun:.1f} s, solved in {time.perf_counter() - built:.1f} s"
        f" ({steps} steps), {(_peak() - before) / 1e9:.2f} GB above the neighbours' {n * k * 12 / 1e9:.2f} GB;"
        f" graph_bytes says {graph_bytes(n, k) / 1e9:.2f} GB for both"
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=262_144)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--alpha", type=float, default=0.8)
    parser.add_argument("--near", type=int, help="draw neighbours from so many places on either side; default: from all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
