"""Benchmarks of what comes after training, and of starting up: views, bootstrap, help."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from bench_inputs import Inputs, pixels_of, place
from bench_measure import at_most, compare, ratios, spread, take_turns, timed

from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import World
from pcam_ssl.evaluation.bootstrap import intervals
from pcam_ssl.evaluation.metrics import point_scores
from pcam_ssl.models.inference import TestViews, predict_logits
from pcam_ssl.models.network import build_network

CPU = World(0, 1, torch.device("cpu"))
ROOT = Path(__file__).resolve().parents[1]


def views(inputs: Inputs):
    """Prediction under D4 and 4 random views from the packed dataset, over 12 plain forward passes on tensors in memory."""
    test_views, precision = TestViews(d4=True, random_views=4), choose_precision(CPU.device)
    count, batch_size = inputs.size(256, 8), inputs.size(128, 8)
    rows = labelled_rows(inputs.dataset.patches).head(count)
    pixels = pixels_of(inputs.dataset)
    for name in ("resnet34", "resnet18"):
        network = build_network(name, False, inputs.dataset.size_px)
        network.to(memory_format=torch.channels_last if precision.channels_last else torch.contiguous_format)
        in_memory = torch.from_numpy(pixels.array[rows["row"].to_numpy()]).split(batch_size)

        def viewed(network=network) -> None:
            predict_logits(
                network, pixels, rows["row"], rows["id"], views=test_views, batch_size=batch_size, precision=precision, world=CPU
            )

        def plain(network=network, in_memory=in_memory) -> None:
            with torch.inference_mode(), precision.autocast(CPU.device):
                for batch in in_memory:
                    for _ in range(test_views.count):
                        network(batch)["logit"]

        seconds = take_turns({"viewed": timed(viewed), "plain": timed(plain)}, inputs.size(5, 2))
        yield compare(
            f"views: {name}, {inputs.dataset.size_px} px, D4 and 4 random",
            ratios(seconds["viewed"], seconds["plain"]),
            at_most(1.05),
            *(f"{count / spread(seconds[side]).median:,.1f} patches/s" for side in ("viewed", "plain")),
            place(CPU.device, precision),
        )


def bootstrap(inputs: Inputs):
    """2,000 slide-clustered resamples of 220,000 rows in 200 slides, over scoring the resampled rows one resample at a time."""
    n_rows, n_slides, resamples = inputs.size(220_000, 5_000), 200, 2000
    rng = np.random.default_rng(0)
    slides = rng.integers(n_slides, size=n_rows)
    labels = (rng.random(n_rows) < 0.4).astype(np.int64)
    probs = 1 / (1 + np.exp(-(2.5 * (2 * labels - 1) + 2 * rng.normal(size=n_rows))))
    rows_of = np.split(np.argsort(slides, kind="stable"), np.cumsum(np.bincount(slides, minlength=n_slides))[:-1])
    looped = inputs.size(5, 1)

    def loop() -> None:
        for _ in range(looped):
            drawn = np.concatenate([rows_of[slide] for slide in rng.integers(n_slides, size=n_slides)])
            point_scores(labels[drawn], probs[drawn])

    sides = {"tool": timed(lambda: intervals(labels, probs, slides, resamples)), "loop": timed(loop)}
    seconds = take_turns(sides, inputs.size(5, 2))
    whole_loop = [turn * resamples / looped for turn in seconds["loop"]]
    tool = spread(seconds["tool"]).median
    yield compare(
        f"bootstrap: {resamples:,} resamples, {n_rows:,} rows, {n_slides} slides",
        ratios(seconds["tool"], whole_loop),
        at_most(10, "s"),
        f"{tool:.1f} s",
        f"{spread(whole_loop).median:,.0f} s, from {looped} resamples",
        place(CPU.device),
        value=tool,
    )


def starting(inputs: Inputs):
    """Wall time of `pcam-ssl --help`, over an empty Python process; torch must not be imported."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr

    show_help = ("-m", "pcam_ssl", "--help")
    imported = {line.rpartition("|")[2].strip() for line in run("-X", "importtime", *show_help).splitlines()}
    sides = {"help": timed(lambda: run(*show_help)), "empty": timed(lambda: run("-c", "pass"))}
    seconds = take_turns(sides, inputs.size(9, 2))
    median_s, target = spread(seconds["help"]).median, at_most(0.5, "s, no torch")
    yield compare(
        "help: `pcam-ssl --help`",
        ratios(seconds["help"], seconds["empty"]),
        target,
        f"{median_s:.2f} s, torch {'imported' if 'torch' in imported else 'not imported'}",
        f"{spread(seconds['empty']).median:.2f} s",
        place(CPU.device),
        value=float("inf") if "torch" in imported else median_s,
    )
