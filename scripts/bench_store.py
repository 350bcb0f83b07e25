"""Search in a vector database beside FAISS in memory: recall@10, rate with and without the query's own slide, load time, memory. Prints markdown rows.

    python scripts/bench_store.py                        # 100,000 vectors in a milvus-lite file; about a minute on one core
    python scripts/bench_store.py --patches 1000000      # a million; about 13 minutes
    python scripts/bench_store.py --store http://HOST:19530

Vectors are in clusters, as of bench_search.py. The process, and milvus-lite's, are held to `--threads` cores. An index that the store
refuses gets a row that says so.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
from bench_search import clustered, patches, resident_bytes

from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.exclusion import Exclusion, leave_out_slides
from pcam_ssl.neighbors.faiss_index import unit_rows
from pcam_ssl.neighbors.index import COLUMNS, build_index
from pcam_ssl.neighbors.search import search
from pcam_ssl.search.store import EXACT, INDEXES, Store, open_store
from pcam_ssl.search.store_gallery import BLOCK, Only, StoreGallery, search_store
from pcam_ssl.tables import conform

K = 10
FACTORIES = ("Flat", "IVF1024,Flat", "HNSW16")
COLLECTION = "bench_store"


def measured(queries: np.ndarray, truth: list, exclude: Exclusion, find: Callable) -> dict:
    """Recall@10 and queries/s of `find(queries, exclude)`, plain and without each query's own slide. `truth` is filled by the first."""
    found, rates = [], []
    for excluded in (None, exclude):
        begun = time.perf_counter()
        found.append(find(queries, excluded)[1])
        rates.append(len(queries) / (time.perf_counter() - begun))
    truth = truth or found
    recalls = [
        float(np.mean([len(np.intersect1d(a[a >= 0], b)) for a, b in zip(ours, exact, strict=True)]) / K)
        for ours, exact in zip(found, truth, strict=True)
    ]
    return {"recall": recalls, "rate": rates, "found": found}


def bench_faiss(vectors, table, queries, slides, factories) -> tuple[list[dict], list]:
    rows, truth = [], []
    for factory in factories:
        before, begun = resident_bytes(), time.perf_counter()
        gallery = build_index(vectors, table, factory=factory)
        built, held = time.perf_counter() - begun, resident_bytes() - before
        exclude = leave_out_slides(gallery, slides)
        result = measured(queries, truth, exclude, lambda q, out, gallery=gallery: search(gallery, q, K, out))
        truth = truth or result["found"]
        parameters = ", ".join(f"{name}={value}" for name, value in gallery.notes.parameters.items())
        rows.append(row("FAISS in memory", factory, parameters, result, built, held))
        del gallery
    return rows, truth


def bench_store(uri: str, vectors, table, queries, slides, truth, indexes) -> list[dict]:
    """One load, then each index in turn on the same collection."""
    rows = []
    with open_store(uri, make=True) as store:
        loading = in_store(store, table)
        if COLLECTION in store.collections():
            store.drop(COLLECTION)
        before = server_bytes(store)
        store.create(COLLECTION, {}, vectors.shape[1])
        begun = time.perf_counter()
        for start in range(0, len(vectors), BLOCK):
            part = np.arange(start, min(start + BLOCK, len(vectors)))
            store.put(COLLECTION, part, loading.table.iloc[part], loading.slide_codes[part], vectors[part])
        loaded = time.perf_counter() - begun
        say(f"loaded in {loaded:.0f} s")
        for index in indexes:
            begun = time.perf_counter()
            try:
                drop_index(store)
                store.create_index(COLLECTION, index, len(vectors))
                store.load(COLLECTION)
                gallery = in_store(store, table, index)
                # The first search after a change of index builds it, where the store does so late.
                search_store(gallery, queries[:1], K, leave_out_slides(gallery, [None]), Only())
                built = time.perf_counter() - begun
                nothing = leave_out_slides(gallery, [None] * len(queries))
                result = measured(
                    queries,
                    truth,
                    leave_out_slides(gallery, slides),
                    lambda q, out, gallery=gallery, nothing=nothing: search_store(gallery, q, K, out or nothing, Only()),
                )
            except UserError as error:
                rows.append({"where": store.name, "index": index, "failed": error.what})
                continue
            parameters = ", ".join(f"{name}={value}" for name, value in gallery.facts["index"]["parameters"].items())
            rows.append(row(store.name, index, parameters, result, loaded + built, server_bytes(store) - before))
        store.drop(COLLECTION)
    return rows


def in_store(store: Store, table, index: str = EXACT) -> StoreGallery:
    """The gallery of the collection, with the columns that a store takes."""
    described = table.assign(split="train", label=0).reindex(columns=list(COLUMNS))
    return StoreGallery(store, COLLECTION, conform(described, COLUMNS), 0, index, "")


def drop_index(store: Store) -> None:
    for name in store.client.list_indexes(COLLECTION):
        store.client.release_collection(COLLECTION)
        store.client.drop_index(COLLECTION, name)


def server_bytes(store: Store) -> int:
    """Memory of milvus-lite's process without the files it maps; 0 for a server elsewhere."""
    if store.file is None:
        return 0
    # It is a child of this process, by the name of its program.
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    sizes = [Path(f"/proc/{child}/status").read_text() for child in children]
    return sum(1024 * int(text.partition("RssAnon:")[2].split()[0]) for text in sizes if "Name:\tmilvus" in text)


def row(where: str, index: str, parameters: str, result: dict, load_s: float, held: int) -> dict:
    return {
        "where": where,
        "index": index,
        "parameters": parameters,
        "recall_at_10": result["recall"][0],
        "recall_at_10_other_slides": result["recall"][1],
        "queries_per_s": result["rate"][0],
        "queries_per_s_other_slides": result["rate"][1],
        "load_s": load_s,
        "memory_gb": held / 1e9,
    }


def markdown(rows: list[dict]) -> str:
    lines = [
        "| where | index | parameters | recall@10 | queries/s | over FAISS Flat | recall@10, other slides | queries/s, other slides | load s | memory GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    flat = rows[0]["queries_per_s"]
    for r in rows:
        if "failed" in r:
            lines.append(f"| {r['where']} | {r['index']} | {r['failed']} | - | - | - | - | - | - | - |")
            continue
        rate = f"{r['recall_at_10']:.3f} | {r['queries_per_s']:,.0f} | {r['queries_per_s'] / flat:.2f}"
        others = f"{r['recall_at_10_other_slides']:.3f} | {r['queries_per_s_other_slides']:,.0f}"
        lines.append(
            f"| {r['where']} | {r['index']} | {r['parameters']} | {rate} | {others} | {r['load_s']:.0f} | {r['memory_gb']:.2f} |"
        )
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--store", help="a Milvus server (default: a milvus-lite file that goes when the benchmark ends)")
    parser.add_argument("--indexes", nargs="+", default=INDEXES)
    parser.add_argument("--factories", nargs="+", default=FACTORIES, help="of FAISS; the first must be Flat, the truth")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # milvus-lite takes all the cores that it sees, and sees those that this process is held to.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    faiss.omp_set_num_threads(arguments.threads)
    vectors = unit_rows(clustered(arguments.patches + arguments.queries, arguments.dimension))
    vectors, queries = vectors[: arguments.patches], vectors[arguments.patches :]
    table = patches(arguments.patches, 300)
    slides = [f"s{number % 300:03}" for number in range(len(queries))]
    rows, truth = bench_faiss(vectors, table, queries, slides, arguments.factories)
    say("FAISS is measured")
    with tempfile.TemporaryDirectory() as folder:
        uri = arguments.store or f"{folder}/bench.db"
        rows += bench_store(uri, vectors, table, queries, slides, truth, arguments.indexes)
    from importlib.metadata import version

    device = {"threads": arguments.threads} | {name: version(name) for name in ("faiss-gpu", "pymilvus", "milvus-lite")}
    print(json.dumps({"device": device, "rows": rows}, indent=2) if arguments.json else markdown(rows))


if __name__ == "__main__":
    main()
