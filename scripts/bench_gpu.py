"""Benchmarks that need a GPU beside those of `bench_fit.py`: a whole baseline, exact search, D4 views. On a CPU they only prove that they run."""

import shutil
import time
from collections.abc import Iterator

import numpy as np
import torch
from bench_fit import judged, size, this_world
from bench_inputs import Inputs, pixels_of, place
from bench_measure import NotMeasured, Row, at_most, compare, rate, ratios, spread, take_turns, timed
from bench_search import K, clustered, patches
from bench_training import BareSide

from pcam_ssl.cross_validation.cross_validate import baseline, loader_workers
from pcam_ssl.cross_validation.training_pixels import for_device
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.device import choose_precision
from pcam_ssl.errors import UserError
from pcam_ssl.models.inference import TestViews, logit_batches
from pcam_ssl.models.network import build_network
from pcam_ssl.neighbors.faiss_index import Backend, choose_backend
from pcam_ssl.neighbors.index import build_index, on_backend
from pcam_ssl.neighbors.search import search
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.records import read_metrics

BLOCK = 4096
SLIDES = 200
NETWORKS = ("resnet34", "resnet18")
"""Networks that predict under D4."""


def whole_baseline(inputs: Inputs) -> Iterator[Row]:
    """Time of one baseline of 5 folds (ResNet18, the default recipe without published weights) on synthetic patches, over its training steps done bare."""
    world = this_world()
    n, size_px = inputs.patches or size(inputs, 220_000, 300), size(inputs, 96, 32)
    tiny = size(inputs, 0, 1)
    settings = ("model.name=test_resnet", "train.epochs=1", "train.batch_size=16", "score.resamples=100") if tiny else ()
    recipe = load_recipe("baseline", ["model.pretrained=false", *settings])
    dataset = noise_dataset(inputs, n, size_px)
    begun = time.perf_counter()
    run = baseline(recipe, dataset.path, inputs.folder / "baseline")
    whole_s = time.perf_counter() - begun
    folds = sorted(run.path.glob("fold-*/metrics.jsonl"))
    steps = sum(read_metrics(path)[-1]["step"] for path in folds)
    few = size(inputs, 400, 2)
    bare = BareSide(for_device(recipe, world.device), dataset, world, few)
    bare_s = [each * steps / few for each in take_turns({"bare": timed(bare)}, size(inputs, 3, 2))["bare"]]
    shutil.rmtree(dataset.path)
    row = Row(
        f"gpu-baseline: {recipe.model.name}, {len(folds)} folds, {n:,} patches of {size_px} px",
        ratios([whole_s] * len(bare_s), bare_s),
        a=f"{whole_s:,.0f} s, {steps:,} steps",
        b=f"{spread(bare_s).median:,.0f} s, from {few} steps",
        place=place(world.device, choose_precision(world.device)),
    )
    yield judged(row)


def noise_dataset(inputs: Inputs, n: int, size_px: int) -> Dataset:
    """`n` labelled patches of noise on SLIDES slides."""
    path, rng = inputs.folder / "noise", np.random.default_rng(0)
    if shutil.disk_usage(inputs.folder).free < 1.1 * n * 3 * size_px**2:
        raise NotMeasured(f"needs {n * 3.3e-9 * size_px**2:.0f} GB in {inputs.folder.parent}")
    noise = rng.integers(0, 256, (min(n, BLOCK), size_px, size_px, 3), np.uint8)
    with DatasetWriter(path, size_px, source="noise", source_format="synthetic", expected=n) as writer:
        # One block of noise, turned by one value a time: drawing it anew takes longer than packing it.
        for begin in range(0, n, BLOCK):
            pixels = noise[: n - begin] + np.uint8(begin // BLOCK % 256)
            numbers = np.arange(begin, begin + len(pixels))
            slides = [f"slide-{number:03d}" for number in numbers % SLIDES]
            ids = [f"{number:016x}" for number in numbers]
            writer.append(pixels, ids, "train", labels=rng.integers(0, 2, len(pixels)), wsi=slides)
    return open_dataset(path)


def gpu_backend() -> Backend:
    """The GPU as FAISS's backend. Raises NotMeasured where there is none, or FAISS cannot use it."""
    if not torch.cuda.is_available():
        raise NotMeasured("no GPU")
    try:
        return choose_backend("gpu")
    except UserError as error:
        raise NotMeasured(str(error)) from None


def exact_search(inputs: Inputs) -> Iterator[Row]:
    """Queries/s of exact search on the GPU over that on the CPU, both through `neighbors.search`, with the same neighbours."""
    backend = gpu_backend()
    n, dimension = inputs.vectors or inputs.size(2_000_000, 20_000), 512
    n_queries = min(n, inputs.size(1_000, 100))
    embeddings = clustered(n, dimension)
    on_cpu = build_index(embeddings, patches(n, 300))
    del embeddings
    on_gpu = on_backend(on_cpu.faiss_index, on_cpu.order, on_cpu.table, on_cpu.notes, backend)
    queries = on_cpu.vectors[np.random.default_rng(1).choice(n, n_queries, replace=False)]
    found = {name: search(gallery, queries, K)[1] for name, gallery in (("gpu", on_gpu), ("cpu", on_cpu))}
    same = int((found["gpu"] == found["cpu"]).all(axis=1).sum())
    sides = {"gpu": timed(lambda: search(on_gpu, queries, K)), "cpu": timed(lambda: search(on_cpu, queries, K))}
    seconds = take_turns(sides, inputs.size(5, 2))
    yield Row(
        f"gpu-search: exact, {n:,} x {dimension}, k = {K}",
        ratios(seconds["cpu"], seconds["gpu"]),
        "same neighbours",
        same == n_queries,
        f"{rate(n_queries, seconds['gpu'], 'queries')}, {same:,} of {n_queries:,} queries with the same neighbours",
        rate(n_queries, seconds["cpu"], "queries"),
        place(this_world().device),
    )


def dihedral_views(inputs: Inputs) -> Iterator[Row]:
    """Time of prediction under D4, read from the packed dataset, over eight plain forward passes of the same batches on the device."""
    world, views = this_world(), TestViews(d4=True)
    precision, batch_size, count = choose_precision(world.device), size(inputs, 128, 4), size(inputs, 200, 2)
    workers = loader_workers(load_recipe(None), world)
    rows = np.resize(labelled_rows(inputs.dataset.patches).row.to_numpy(), batch_size * (count + 1))
    pixels = pixels_of(inputs.dataset)
    batch = torch.from_numpy(pixels.array[rows[:batch_size]]).to(world.device)
    for name in NETWORKS:
        network = build_network(name, False, inputs.dataset.size_px).eval()
        network.to(world.device, memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)

        def viewed(network=network) -> float:
            options = {"views": views, "batch_size": batch_size, "precision": precision, "device": world.device}
            batches = logit_batches(network, pixels, rows, rows, range(count + 1), **options, workers=workers)
            next(batches)  # loader processes start
            begun = time.perf_counter()
            for _ in batches:
                pass
            return time.perf_counter() - begun

        def plain(network=network) -> float:
            begun = time.perf_counter()
            with torch.inference_mode(), precision.autocast(world.device):
                for _ in range(count):
                    torch.stack([network(batch)["logit"].float() for _ in range(views.count)], 1).cpu()
            return time.perf_counter() - begun

        seconds = take_turns({"viewed": viewed, "plain": plain}, size(inputs, 5, 2))
        row = compare(
            f"gpu-d4: {name}, {inputs.dataset.size_px} px, batch {batch_size}, D4",
            ratios(seconds["viewed"], seconds["plain"]),
            at_most(1.05),
            *(rate(count * batch_size, seconds[side], "patches") for side in ("viewed", "plain")),
            place(world.device, precision),
        )
        yield judged(row)
