"""Benchmarks of metric learning: metric (its step over the supervised step), embed (over plain forward passes)."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from bench_inputs import Inputs, pixels_of, place
from bench_measure import at_least, at_most, compare, rate, ratios, spread, take_turns, timed
from bench_training import CPU, ToolSide, article

from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.device import choose_precision
from pcam_ssl.models.inference import embedding_batches
from pcam_ssl.models.network import build_network
from pcam_ssl.recipe.loading import load_recipe


def metric(inputs: Inputs):
    """Time of the metric step over the supervised step of the same network and batch, loader and views included."""
    for name, steps in (("resnet34", inputs.size(3, 1)), ("resnet10t", inputs.size(6, 1))):
        settings = [f"model.name={name}", f"train.batch_size={inputs.size(64, 8)}"]
        sides = {"supervised": ToolSide(article(*settings), inputs.dataset, CPU, steps)}
        for loss, aware in (("arcface", "false"), ("supcon", "true")):
            recipe = load_recipe(
                "article-resnet34",
                [
                    "model.pretrained=false",
                    "model.image_size=null",
                    "method.name=metric",
                    f"method.loss={loss}",
                    f"method.slide_aware={aware}",
                    *settings,
                ],
            )
            sides[loss] = ToolSide(recipe, inputs.dataset, CPU, steps)
        seconds = take_turns(sides, inputs.size(7, 2))
        for loss in ("arcface", "supcon"):
            yield compare(
                f"metric: {name}, {loss}{', slide-aware' if loss == 'supcon' else ''}",
                ratios(seconds[loss], seconds["supervised"]),
                at_most(1.10),
                *(rate(steps * inputs.size(64, 8), seconds[side], "patches") for side in (loss, "supervised")),
                place(CPU.device, choose_precision(CPU.device)),
            )


def embedding(inputs: Inputs):
    """Embeddings from the packed dataset into a memory-mapped file, over plain forward passes on tensors in memory."""
    precision, count, batch_size = choose_precision(CPU.device), inputs.size(512, 16), inputs.size(128, 8)
    rows, pixels = labelled_rows(inputs.dataset.patches).row.to_numpy()[:count], pixels_of(inputs.dataset)
    network = build_network("resnet18", False, inputs.dataset.size_px, projection=128).eval()
    network.to(memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)
    in_memory = torch.from_numpy(pixels.array[rows]).split(batch_size)
    with tempfile.TemporaryDirectory() as folder:
        out = np.lib.format.open_memmap(Path(folder) / "embeddings.npy", "w+", np.float32, (len(rows), 128))

        def embed() -> None:
            numbers = range(-(-len(rows) // batch_size))
            options = {"batch_size": batch_size, "precision": precision, "device": CPU.device}
            for number, part in enumerate(embedding_batches(network, pixels, rows, numbers, **options)):
                out[number * batch_size :][: len(part)] = part

        def plain() -> None:
            with torch.inference_mode(), precision.autocast(CPU.device):
                for batch in in_memory:
                    network(batch)

        seconds = take_turns({"embed": timed(embed), "plain": timed(plain)}, inputs.size(7, 2))
    yield compare(
        f"embed: resnet18, {inputs.dataset.size_px} px",
        ratios(seconds["plain"], seconds["embed"]),
        at_least(0.9),
        *(f"{len(rows) / spread(seconds[side]).median:,.0f} patches/s" for side in ("embed", "plain")),
        place(CPU.device, precision),
    )
