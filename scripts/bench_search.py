"""Search: our rate over raw FAISS and scikit-learn, the price of leaving out slides, and approximate indexes. Prints markdown rows.

    python scripts/bench_search.py                       # 262,144 patches; a few minutes on 2 cores
    python scripts/bench_search.py --approximate         # the table of one million patches, IVF and HNSW; below 6 minutes on 2 cores
    python scripts/bench_search.py --patches 20000       # a quick look

Compared things run in turns in one process, the order swapped each round; a ratio is the median over rounds.
"""

import argparse
import gc
import json
import sys
import time
from pathlib import Path
from statistics import median

import faiss
import numpy as np
import pandas as pd

from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.faiss_index import set_parameters
from pcam_ssl.neighbors.index import build_index
from pcam_ssl.neighbors.search import search

K = 20
FACTORIES = ("IVF1024,Flat", "IVF1024,SQ8", "HNSW16")
CLUSTERS = 2000
SEARCH_WIDER = (1, 4, 16)


def clustered(n: int, dimension: int, seed: int = 0, source: Path | None = None, noise: float = 0.3) -> np.ndarray:
    """Vectors float32 [n, D] that lie as trained embeddings do: rows of `source` (.npy) tiled with noise, or clusters of uneven size."""
    rng = np.random.default_rng(seed)
    if source is None:
        centres = rng.normal(size=(CLUSTERS, dimension)).astype(np.float32)
        shares = rng.pareto(1.5, size=CLUSTERS) + 0.1
        rows = centres[rng.choice(CLUSTERS, n, p=shares / shares.sum())]
    else:
        rows = np.load(source, mmap_mode="r")[rng.permutation(np.arange(n) % len(np.load(source, mmap_mode="r")))].astype(
            np.float32
        )
    scale = noise * np.linalg.norm(rows, axis=1, keepdims=True) / np.sqrt(rows.shape[1])
    for start in range(0, n, 2**16):
        part = rows[start : start + 2**16]
        part += scale[start : start + 2**16] * rng.standard_normal(part.shape, dtype=np.float32)
    return rows


def patches(n: int, n_slides: int, seed: int = 0) -> pd.DataFrame:
    """A table of n patches on slides, in no order."""
    slides = np.random.default_rng(seed).integers(n_slides, size=n)
    return pd.DataFrame({"id": [f"p{row}" for row in range(n)], "wsi": [f"s{slide:03}" for slide in slides]})


def in_turns(tasks: dict, rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in each round; the order is swapped every round, and one round before does not count."""
    seconds = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name in list(tasks)[:: -1 if turn % 2 else 1]:
            begun = time.perf_counter()
            tasks[name]()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(seconds: dict, over: str, under: str) -> float:
    """Median over rounds of the time of `over` / the time of `under`."""
    return median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def resident_bytes() -> int:
    """Memory of this process without the files it maps."""
    gc.collect()  # what an earlier benchmark left in cycles would be freed in the middle of this one
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def bench_exact(n: int, dimension: int, n_queries: int, rounds: int, sklearn_queries: int) -> list[dict]:
    from sklearn.neighbors import NearestNeighbors

    embeddings, table = clustered(n, dimension), patches(n, 300)
    before = resident_bytes()
    gallery = build_index(embeddings, table)
    held = resident_bytes() - before
    rows = np.random.default_rng(1).choice(n, n_queries, replace=False)
    queries = gallery.vectors[gallery.places[rows]]
    exclude = leave_out(gallery, table.iloc[rows])
    raw = faiss.IndexFlatIP(dimension)
    raw.add(gallery.vectors)
    brute = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(gallery.vectors)
    seconds = in_turns(
        {
            "ours": lambda: search(gallery, queries, K),
            "raw": lambda: raw.search(queries, K),
            "excluded": lambda: search(gallery, queries, K, leave_out(gallery, table.iloc[rows])),
            "few": lambda: search(gallery, queries[:sklearn_queries], K),
            "sklearn": lambda: brute.kneighbors(queries[:sklearn_queries]),
        },
        rounds,
    )
    found = search(gallery, queries, K, exclude)[1]
    of = f"{n:,} x {dimension}, k = {K}"
    rate = n_queries / median(seconds["ours"])
    return [
        row(f"exact search, {of}", "raw FAISS flat", ratio(seconds, "raw", "ours"), ">= 0.95", f"{rate:,.0f} queries/s"),
        row(
            f"exact search, {of}",
            "scikit-learn brute force",
            ratio(seconds, "sklearn", "few"),
            ">= 5",
            f"{sklearn_queries} queries each",
        ),
        row(
            f"time without the own slide, {of}",
            "plain search",
            ratio(seconds, "excluded", "ours"),
            "<= 1.3",
            f"{len(gallery.slides)} slides; {(found < 0).sum()} neighbours short",
        ),
        row(f"memory of the exact index, {n:,} x {dimension}", "N * D * 4 bytes", held / (n * dimension * 4), "about 1", ""),
    ]


def bench_near_slides(n: int, dimension: int, n_queries: int, rounds: int) -> dict:
    """Every slide a tight cluster of thousands: all of a query's nearest patches are on its own slide."""
    table = patches(n, 100)
    centres = np.random.default_rng(2).normal(size=(100, dimension)).astype(np.float32)
    embeddings = centres[table["wsi"].str[1:].astype(int)]
    embeddings += 0.05 * np.random.default_rng(3).standard_normal(embeddings.shape, dtype=np.float32)
    gallery = build_index(embeddings, table)
    rows = np.random.default_rng(1).choice(n, n_queries, replace=False)
    queries = embeddings[rows]
    seconds = in_turns(
        {
            "plain": lambda: search(gallery, queries, K),
            "excluded": lambda: search(gallery, queries, K, leave_out(gallery, table.iloc[rows])),
        },
        rounds,
    )
    found = search(gallery, queries, K, leave_out(gallery, table.iloc[rows]))[1]
    return row(
        f"time without the own slide, {n:,} x {dimension}, its {n // 100:,} patches nearest",
        "plain search",
        ratio(seconds, "excluded", "plain"),
        "<= 1.3",
        f"{(found < 0).sum()} neighbours short",
    )


def bench_approximate(n: int, dimension: int, n_queries: int, factories, source: Path | None, noise: float) -> list[dict]:
    """Recall@10 against exact, rate, build time, and memory of each factory string, its search as wide as by default and wider."""
    embeddings = clustered(n + n_queries, dimension, source=source, noise=noise)
    embeddings, queries = embeddings[:n], embeddings[n:]
    table = patches(n, 300)
    truth, results = None, []
    for factory in ("Flat", *factories):
        before, begun = resident_bytes(), time.perf_counter()
        gallery = build_index(embeddings, table, factory=factory)
        build_s, held = time.perf_counter() - begun, resident_bytes() - before
        for times in (1,) if not gallery.notes.parameters else SEARCH_WIDER:
            parameters = {name: times * value for name, value in gallery.notes.parameters.items()}
            set_parameters(gallery.searched, parameters)
            begun = time.perf_counter()
            found = search(gallery, queries, 10)[1]
            search_s = time.perf_counter() - begun
            truth = found if truth is None else truth
            recall = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]) / 10
            results.append(
                {
                    "index": factory,
                    "parameters": parameters,
                    "recall_at_10": float(recall),
                    "queries_per_s": n_queries / search_s,
                    "build_s": build_s,
                    "memory_gb": held / 1e9,
                }
            )
        del gallery
        print(f"{factory}: built in {build_s:.0f} s", file=sys.stderr)
    return results


def row(what: str, over: str, value: float, target: str, note: str) -> dict:
    return {"what": what, "over": over, "ratio": round(value, 3), "target": target, "note": note}


def markdown(rows: list[dict]) -> str:
    lines = ["| what | over | ratio | target | note |", "|---|---|---|---|---|"]
    return "\n".join(lines + [f"| {r['what']} | {r['over']} | {r['ratio']:.2f} | {r['target']} | {r['note']} |" for r in rows])


def approximate_markdown(rows: list[dict]) -> str:
    lines = ["| index | parameters | recall@10 | queries/s | build s | memory GB |", "|---|---|---|---|---|---|"]
    for r in rows:
        parameters = ", ".join(f"{name}={value}" for name, value in r["parameters"].items())
        cells = f"{r['recall_at_10']:.3f} | {r['queries_per_s']:,.0f} | {r['build_s']:.0f} | {r['memory_gb']:.2f}"
        lines.append(f"| {r['index']} | {parameters} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, help="size of the gallery (262,144; 1,000,000 with --approximate)")
    parser.add_argument("--dimensions", type=int, nargs="+", help="values per vector (128 and 512; 128 with --approximate)")
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--sklearn-queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--approximate", action="store_true", help="the table of approximate indexes instead")
    parser.add_argument("--factories", nargs="+", default=FACTORIES)
    parser.add_argument("--embeddings", type=Path, help="trained embeddings (.npy) to tile with noise, for --approximate")
    parser.add_argument("--noise", type=float, default=0.3, help="length of the noise over that of a vector, for --approximate")
    parser.add_argument("--threads", type=int, default=faiss.omp_get_max_threads())
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    device = {"threads": arguments.threads, "faiss": faiss.__version__, "faiss_build": faiss.get_compile_options().strip()}
    if arguments.approximate:
        dimension = (arguments.dimensions or [128])[0]
        rows = bench_approximate(
            arguments.patches or 1_000_000, dimension, arguments.queries, arguments.factories, arguments.embeddings, arguments.noise
        )
        text = approximate_markdown(rows)
    else:
        n, rows = arguments.patches or 2**18, []
        for dimension in arguments.dimensions or (128, 512):
            rows += bench_exact(n, dimension, arguments.queries, arguments.rounds, arguments.sklearn_queries)
            rows.append(bench_near_slides(n, dimension, arguments.queries, arguments.rounds))
        text = markdown(rows)
    print(json.dumps({"device": device, "rows": rows}, indent=2) if arguments.json else text)


if __name__ == "__main__":
    main()
