"""`pcam-ssl report` on run folders of synthetic predictions: wall time, peak memory, and size of the page.

    python scripts/bench_report.py                   # 20,000 and 220,000 rows; a minute
    python scripts/bench_report.py --rows 50000      # one size

Each report is a process of its own, started as a user starts it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from bench_inputs import Inputs, place
from bench_measure import NotMeasured, at_most, compare, ratios, spread
from scipy.special import expit

from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import write_json, write_text
from pcam_ssl.recipe.loading import to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.begin import versions
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, write_table

CPU = torch.device("cpu")
# Measured is the checkout that this script lies in, not what may be installed.
ROOT = Path(__file__).resolve().parents[1]
# The process reads its own peak: what the parent held before it counts in `ru_maxrss`.
PEAK = """
import atexit, sys
from pcam_ssl.cli import main
atexit.register(lambda: print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))))
sys.argv = ["pcam-ssl", "report", sys.argv[1]]
main()
"""
FOLDS, EPOCHS, SLIDES, RESAMPLES = 5, 20, 200, 2000


@dataclass(frozen=True)
class Measured:
    """One report of `rows` out-of-fold rows."""

    rows: int
    seconds: float
    peak_mb: float
    page_mb: float

    def text(self) -> str:
        return f"{self.seconds:.1f} s, {self.peak_mb:,.0f} MB, page of {self.page_mb:.2f} MB"


def synthetic_run(path: Path, rows: int, slides: int = SLIDES) -> Run:
    """A finished run of `rows` labelled patches that no network made: all that a report reads, and nothing more."""
    run, oof, floor = Run(path), *_tables(rows, slides)
    run.path.mkdir(parents=True)
    write_table(run.path / "oof.parquet", oof)
    write_table(run.paths.folds, pd.DataFrame({"id": oof.id, "wsi": oof.wsi, "group": oof.wsi, "fold": oof.fold, "visible": True}))
    for k in range(FOLDS):
        others = oof[oof.fold != k]
        inner = others[others.wsi.isin(others.wsi.unique()[:: 2 * FOLDS])].assign(fold=k)
        write_table(run.fold(k) / "inner.parquet", inner)
        calibration = {"temperature": 1.3, "n": len(inner), "n_slides": int(inner.wsi.nunique()), "reason": None}
        facts = {"fold": k, "epoch": EPOCHS, "seconds": 1.0, "train": len(others) - len(inner), "inner": len(inner)}
        write_json(run.fold(k) / "fold.json", {**facts, "score": rows - len(others), "calibration": calibration})
        events = [{"step": e, "epoch": e, "train_loss": 1 / e, "inner_auroc": 1 - 0.3 / e} for e in range(1, EPOCHS + 1)]
        write_text(run.fold(k) / "metrics.jsonl", "".join(json.dumps(event) + "\n" for event in events))
    report = score_report(oof, oof.wsi, RESAMPLES, uncalibrated_logits=oof.logit)
    gain = paired_differences(oof.label.to_numpy(np.int64), floor.prob, oof.prob, oof.wsi, RESAMPLES)
    marks = {"scheme": "grouped", "grouping": "slides", "slides_shared_across_folds": False, "selected_on_fold": False, "notes": []}
    scores = {"out_of_fold": report, "floor": score_report(floor, floor.wsi, RESAMPLES), "above_floor": gain, "held_out": None}
    write_json(run.paths.scores, {**marks, **scores, "views": {"count": 8, "one_view": report["scores"], "gain": gain}})
    write_text(run.paths.recipe, to_yaml(Recipe()))
    digests = {"dataset": str(path / "no dataset"), "dataset_digest": "0" * 64, "recipe_digest": "0" * 64}
    begun = {"command": "baseline", "argv": ["pcam-ssl", "baseline"], "begun": "-", "versions": versions()}
    write_json(run.paths.provenance, {**begun, **digests, "status": "done", "selected_on_fold": False})
    return run


def _tables(rows: int, slides: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Out-of-fold Predictions of slides that differ in tumor share and in difficulty, and a worse floor."""
    rng = np.random.default_rng(0)
    slide = np.sort(rng.integers(slides, size=rows))
    labels = (rng.random(rows) < rng.beta(0.5, 0.7, size=slides)[slide]).astype(np.int64)
    logits = 2.5 * (2 * labels - 1) + 2 * rng.normal(size=rows) + rng.normal(size=slides)[slide]
    ids, names = [f"{row:040x}" for row in range(rows)], np.array([f"camelyon16_train_{n:03}" for n in range(slides)])[slide]
    folds = pd.array(slide % FOLDS, dtype="Int8")
    oof = predictions(ids, labels, names, 0, logits, probs=expit(logits / 1.3)).assign(fold=folds)
    colour = (2 * labels - 1) + 2 * rng.normal(size=rows)
    return oof, predictions(ids, labels, names, 0, colour).assign(fold=folds)


def measure(run: Run, rows: int) -> Measured:
    """Time and peak memory of `pcam-ssl report` in a process of its own."""
    if not Path("/proc/self/status").is_file():
        raise NotMeasured("peak memory is read from /proc, which this system has not")
    command, environment = [sys.executable, "-c", PEAK, str(run.path)], {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    printed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    seconds = time.perf_counter() - begun
    return Measured(rows, seconds, int(printed[-1]) * 1024 / 1e6, (run.path / "report.html").stat().st_size / 1e6)


def report(inputs: Inputs):
    """`pcam-ssl report` of 220,000 out-of-fold rows, over one of 20,000, each a process of its own: time and peak memory."""
    few, many = inputs.size(20_000, 500), inputs.size(220_000, 2_000)
    runs = {rows: synthetic_run(inputs.folder / f"report-{rows}", rows) for rows in (few, many)}
    told = {rows: [] for rows in runs}
    for number in range(inputs.size(4, 2)):
        for rows in list(runs)[:: -1 if number % 2 else 1]:
            found = measure(runs[rows], rows)
            # What comes first reads its files from disk; it is not counted.
            told[rows] += [found] * bool(number)
    seconds = {rows: [one.seconds for one in told[rows]] for rows in runs}
    texts = {rows: _median(told[rows]).text() for rows in runs}
    for rows, other, bound in ((few, many, 30), (many, few, 120)):
        yield compare(
            f"report: {rows:,} rows, over {other:,}",
            ratios(seconds[rows], seconds[other]),
            at_most(bound, "s"),
            texts[rows],
            texts[other],
            place(CPU),
            value=spread(seconds[rows]).median,
        )
    peaks = {rows: [one.peak_mb for one in told[rows]] for rows in runs}
    yield compare(
        f"report: peak memory at {many:,} rows, over {few:,}",
        ratios(peaks[many], peaks[few]),
        at_most(2000, "MB"),
        *(f"{median(peaks[rows]):,.0f} MB" for rows in (many, few)),
        place(CPU),
        value=max(peaks[many]),
    )


def _median(told: list[Measured]) -> Measured:
    return Measured(told[0].rows, *(median(getattr(one, name) for one in told) for name in ("seconds", "peak_mb", "page_mb")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 220_000], help="out-of-fold rows of a run")
    parser.add_argument("--slides", type=int, default=SLIDES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-bench-") as folder:
        for rows in arguments.rows:
            print(f"{rows:,} rows: {measure(synthetic_run(Path(folder) / str(rows), rows, arguments.slides), rows).text()}")


if __name__ == "__main__":
    main()
