"""A vector database beside FAISS on the same vectors: recall@10 against exact search, queries/s, time to load. Prints a markdown table.

    python scripts/bench_store.py --patches 100000
    python scripts/bench_store.py --store http://HOST:19530 --indexes FLAT IVF_FLAT HNSW

Needs the extra `milvus`. The default store is a milvus-lite file in a temporary folder.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from bench_search import clustered, patches

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search
from pcam_ssl.search.store import Store, open_store, search_parameters

K = 10
NAME = "pcam_ssl_benchmark"
REQUEST = 5_000
"""Patches sent at once."""


def faiss_rows(vectors: np.ndarray, table, queries: np.ndarray, factories: list[str]) -> tuple[np.ndarray, list[tuple]]:
    """The true neighbours `[Q, K]`, and a row of the table for each factory string."""
    truth, rows = None, []
    for factory in ("Flat", *factories):
        begun = time.perf_counter()
        gallery = build_index(vectors, table, factory=factory)
        built = time.perf_counter() - begun
        begun = time.perf_counter()
        found = search(gallery, queries, K)[1]
        rate = len(queries) / (time.perf_counter() - begun)
        truth = found if truth is None else truth
        rows.append((f"FAISS {factory}", recall(found, truth), rate, built))
    return truth, rows


def store_row(store: Store, index: str, vectors: np.ndarray, table, queries: np.ndarray, truth: np.ndarray) -> tuple:
    """A row of the table for one index of the store; what is not a number says why there is none."""
    label = f"{store.name} {index}"
    n, begun = len(vectors), time.perf_counter()
    if NAME in store.collections():
        store.drop(NAME)
    try:
        store.create(NAME, {}, vectors.shape[1])
        store.create_index(NAME, index, n)
        store.load(NAME)
        slides = np.unique(table.wsi, return_inverse=True)[1]
        for start in range(0, n, REQUEST):
            part = slice(start, start + REQUEST)
            store.put(NAME, np.arange(n)[part], table.iloc[part], slides[part], vectors[part])
        built = time.perf_counter() - begun
        begun = time.perf_counter()
        found = store.search(NAME, queries, K, "", search_parameters(index, n, K))[1]
    except UserError as error:
        return label, str(error), "", ""
    return label, recall(found, truth), len(queries) / (time.perf_counter() - begun), built


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) / K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--store", help="a server's URL; default: a milvus-lite file")
    parser.add_argument("--indexes", nargs="+", default=["FLAT", "IVF_FLAT", "HNSW"])
    parser.add_argument("--factories", nargs="*", default=["IVF1024,Flat", "HNSW16"])
    options = parser.parse_args()
    every = clustered(options.patches + options.queries, options.dimension)
    every /= np.linalg.norm(every, axis=1, keepdims=True)
    vectors, queries = every[: options.patches], every[options.patches :]
    table = patches(options.patches, 300).assign(split="train", label=0)
    truth, rows = faiss_rows(vectors, table, queries, options.factories)
    with (
        tempfile.TemporaryDirectory(prefix="pcam-ssl-bench-") as folder,
        open_store(options.store or str(Path(folder) / "bench.db"), make=True) as store,
    ):
        rows += [store_row(store, index, vectors, table, queries, truth) for index in options.indexes]
    print(f"{options.patches:,} x {options.dimension}, {options.queries} queries\n")
    print("| index | recall@10 | queries/s | loaded or built in s |\n|---|---|---|---|")
    for label, found, rate, built in rows:
        cells = [found, "", ""] if isinstance(found, str) else [f"{found:.3f}", f"{rate:,.0f}", f"{built:.0f}"]
        print(f"| {label} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
