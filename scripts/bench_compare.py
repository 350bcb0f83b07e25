"""`pcam-ssl compare` and `pcam-ssl blend` of ten run folders of synthetic predictions: wall time and peak memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from bench_inputs import Inputs, place
from bench_measure import NotMeasured, at_most, compare, ratios, spread
from scipy.special import expit

from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import write_json, write_text
from pcam_ssl.recipe.loading import to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.begin import versions
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, write_table

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
# The process reads its own peak: what the parent held before it counts in `ru_maxrss`.
PEAK = """
import atexit, sys
from pcam_ssl.cli import main
atexit.register(lambda: print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))))
sys.argv = ["pcam-ssl", *sys.argv[1:]]
main()
"""
RUNS, FEW, FOLDS, EPOCHS, SLIDES = 10, 2, 5, 20, 200


def synthetic_runs(folder: Path, rows: int, test_rows: int) -> list[Path]:
    """Ten finished runs of the same `rows` labelled patches of 200 slides and the same test patches; each errs in its own way."""
    rng = np.random.default_rng(0)
    slide = np.sort(rng.integers(SLIDES, size=rows))
    labels = (rng.random(rows) < rng.beta(0.5, 0.7, size=SLIDES)[slide]).astype(np.int64)
    names = np.array([f"camelyon16_train_{n:03}" for n in range(SLIDES)])[slide]
    shared = rng.normal(size=rows)
    known = pd.DataFrame({"id": [f"{row:040x}" for row in range(rows)], "label": labels, "wsi": names, "fold": slide % FOLDS})
    made = []
    for number in range(RUNS):
        logits = 2.5 * (2 * labels - 1) + shared + (1 + number / 10) * rng.normal(size=rows)
        made.append(_write(Run(folder / f"run-{number}"), known, logits, rng.normal(size=(FOLDS, test_rows))))
    return made


def _write(run: Run, known: pd.DataFrame, logits: np.ndarray, test_logits: np.ndarray) -> Path:
    oof = predictions(known.id, known.label, known.wsi, 0, logits, probs=expit(logits / 1.3))
    oof["fold"] = pd.array(known.fold, dtype="Int8")
    write_table(run.path / "oof.parquet", oof)
    ids = [f"t{row:039x}" for row in range(test_logits.shape[1])]
    empty = [None] * len(ids)
    parts = [predictions(ids, empty, empty, k, test_logits[k]) for k in range(FOLDS)]
    parts.append(predictions(ids, empty, empty, -1, test_logits.mean(axis=0)))
    write_table(run.path / "test.parquet", pd.concat(parts, ignore_index=True))
    write_table(run.paths.folds, known.drop(columns="label").assign(group=known.wsi, visible=True))
    for k in range(FOLDS):
        write_json(run.fold(k) / "fold.json", {"fold": k, "epoch": EPOCHS})
        events = [
            {"step": 9 * e, "epoch": e, "seconds": 1, "train_loss": 1 / e, "inner_auroc": 1 - 0.3 / e} for e in range(1, EPOCHS + 1)
        ]
        write_text(run.fold(k) / "metrics.jsonl", "".join(json.dumps(event) + "\n" for event in events))
    marks = {"scheme": "grouped", "grouping": "slides", "slides_shared_across_folds": False, "selected_on_fold": False, "notes": []}
    report = score_report(oof, oof.wsi, resamples=100)
    write_json(run.paths.scores, {**marks, "out_of_fold": report, "floor": None, "above_floor": None, "held_out": None})
    write_text(run.paths.recipe, to_yaml(Recipe()))
    digests = {"dataset": "no dataset", "dataset_digest": "0" * 64, "recipe_digest": run.path.name.ljust(64, "0")}
    begun = {"command": "baseline", "argv": ["pcam-ssl", "baseline"], "begun": "-", "versions": versions(), "device": "none"}
    write_json(run.paths.provenance, {**begun, **digests, "status": "done", "selected_on_fold": False})
    return run.path


def _measure(words: list) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command in a process of its own."""
    command, environment = [sys.executable, "-c", PEAK, *map(str, words)], {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    printed = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout
    return time.perf_counter() - begun, int(printed.split()[-1]) * 1024 / 1e6


def comparing(inputs: Inputs):
    """`pcam-ssl compare` with its page, and `blend` by each way of weighing, of ten runs of 220,000 rows, over two runs: time and peak memory."""
    if not Path("/proc/self/status").is_file():
        raise NotMeasured("peak memory is read from /proc, which this system has not")
    rows, test_rows = inputs.size(220_000, 2_000), inputs.size(57_458, 200)
    folder = inputs.folder / "compared"
    runs = synthetic_runs(folder, rows, test_rows)
    out = folder / "blend"
    commands = {
        "compare": ("compare", "--html", folder / "compare.html"),
        "blend: weights": ("blend", "--method", "weights", "--out", out),
        "blend: greedy": ("blend", "--method", "greedy", "--out", out),
        "blend: rank-mean": ("blend", "--method", "rank-mean", "--out", out),
    }
    for name, (verb, *options) in commands.items():
        told: dict[int, list[tuple[float, float]]] = {RUNS: [], FEW: []}
        for turn in range(inputs.size(3, 2)):
            for count in (RUNS, FEW)[:: -1 if turn % 2 else 1]:
                shutil.rmtree(out, ignore_errors=True)
                found = _measure([verb, *runs[:count], *options])
                # What comes first reads its files from disk; it is not counted.
                told[count] += [found] * bool(turn)
        seconds = {count: [each for each, _ in told[count]] for count in told}
        texts = [f"{median(seconds[count]):.1f} s, {median(peak for _, peak in told[count]):,.0f} MB" for count in (RUNS, FEW)]
        yield compare(
            f"{name}: {RUNS} runs of {rows:,} rows, over {FEW}",
            ratios(seconds[RUNS], seconds[FEW]),
            at_most(60, "s"),
            *texts,
            place(CPU),
            value=spread(seconds[RUNS]).median,
        )
