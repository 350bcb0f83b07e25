"""Packing benchmarks: batches (packed against opening TIFFs), import (rate and memory)."""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from bench_inputs import Inputs, pixels_of, place
from bench_measure import NotMeasured, at_least, at_most, compare, rate, ratios, spread, take_turns, timed
from bench_plain import open_patch, pack_plainly

from pcam_ssl.data.batches import TrainStream, load
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.importing import import_source
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.views import Views

CPU = torch.device("cpu")
BATCH = 64
# A fresh process, because memory that this one once held counts in its own peak.
IMPORT = """
import sys, time
from pcam_ssl.data.importing import import_source
begun = time.perf_counter()
import_source(sys.argv[1], sys.argv[2], workers=2)
print(time.perf_counter() - begun)
"""


def batches(inputs: Inputs):
    """Batches of pixels without views: from the packed dataset, and by opening each patch's TIFF; files are in the page cache."""
    dataset, files = inputs.kaggle_dataset, inputs.tiffs
    rows = labelled_rows(dataset.patches)
    plan = Shuffled(len(rows), BATCH, 0)
    stream = TrainStream(pixels_of(dataset), rows["row"].to_numpy(), rows["label"].to_numpy(np.int64), plan, Views("none"), 0)
    count = inputs.size(100, 3)

    def packed() -> None:
        for _ in load(stream, range(count), 0, CPU):
            pass

    def opened() -> None:
        for number in range(count):
            torch.from_numpy(np.stack([open_patch(files[index]) for index in plan.batch(number)]))

    seconds = take_turns({"packed": timed(packed), "opened": timed(opened)}, inputs.size(9, 2))
    sides = (rate(count * BATCH, seconds[name], "patches") for name in ("packed", "opened"))
    yield compare("batches", ratios(seconds["opened"], seconds["packed"]), at_least(10), *sides, place(CPU))


def importing(inputs: Inputs):
    """Rate of an import of the Kaggle zip in one process, what a second process brings, and the peak memory at many patches."""
    target, plain = inputs.folder / "imported", inputs.folder / "plain.npy"

    def imported(source: Path = inputs.kaggle_zip, workers: int = 1) -> None:
        shutil.rmtree(target, ignore_errors=True)
        import_source(source, target, workers=workers)

    seconds = take_turns(
        {"tool": timed(imported), "plain": timed(lambda: pack_plainly(inputs.kaggle_zip, plain))}, inputs.size(5, 2)
    )
    count = len(inputs.kaggle_dataset)
    yield compare(
        "import: rate, statistics and hashes included, over a plain loop without them",
        ratios(seconds["plain"], seconds["tool"]),
        at_least(1000, "patches/s"),
        *(rate(count, seconds[name], "patches") for name in ("tool", "plain")),
        place(CPU),
        value=count / spread(seconds["tool"]).median,
    )
    yield _workers_row(inputs, imported)
    yield _peak_row(inputs)


def _workers_row(inputs: Inputs, imported):
    count, many = inputs.size(40_000, 2_000), inputs.folder / "many.zip"
    _repeat_patches(inputs.kaggle_zip, many, count)
    try:
        seconds = take_turns({n: timed(lambda n=n: imported(many, n)) for n in (1, 2)}, inputs.size(3, 1))
    finally:
        many.unlink()
    return compare(
        f"import: two decoding processes over one, {count:,} patches",
        ratios(seconds[1], seconds[2]),
        at_least(1.7),
        *(rate(count, seconds[n], "patches") for n in (2, 1)),
        place(CPU),
    )


def _peak_row(inputs: Inputs):
    count = inputs.size(200_000, 4_000)
    if not Path("/proc/self/status").is_file():
        raise NotMeasured("peak memory is read from /proc, which this system has not")
    if shutil.disk_usage(inputs.folder).free < count * 2 * 30_000:
        raise NotMeasured(f"needs {count * 60_000 / 1e9:.0f} GB in {inputs.folder.parent}")
    folder = inputs.folder / "many"
    folder.mkdir()
    try:
        _repeat_patches(inputs.kaggle_zip, folder / "many.zip", count)
        many_s, many_mb = _import_peak(folder / "many.zip", folder / "dataset")
        _, few_mb = _import_peak(inputs.kaggle_zip, folder / "few")
    finally:
        shutil.rmtree(folder)
    return compare(
        f"import: peak memory at {count:,} patches, over that at {len(inputs.kaggle_dataset):,}",
        spread([many_mb / few_mb]),
        at_most(1000, "MB"),
        f"{many_mb:,.0f} MB, {count / many_s:,.0f} patches/s",
        f"{few_mb:,.0f} MB",
        place(CPU),
        value=many_mb,
    )


def _import_peak(source: Path, target: Path) -> tuple[float, float]:
    """Seconds of an import in a process of its own, and the peak memory in MB of that process and its workers; shared pages count once."""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", IMPORT, str(source), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    peak_kb = 0
    while process.poll() is None:
        peak_kb = max(peak_kb, sum(map(_pss_kb, _session(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")
    return float(process.stdout.read()), peak_kb * 1024 / 1e6


def _session(leader: int) -> list[Path]:
    """The folders in /proc of the processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                found.append(folder)
    return found


def _pss_kb(folder: Path) -> int:
    with suppress(OSError):
        return next(int(line.split()[1]) for line in (folder / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    return 0


def _repeat_patches(source: Path, target: Path, count: int) -> None:
    """A Kaggle zip of `count` train patches: the TIFFs of `source` again and again under new ids; stored, as they hardly deflate."""
    with zipfile.ZipFile(source) as archive:
        tiffs = [archive.read(name) for name in archive.namelist() if name.endswith(".tif")]
    ids = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(count)]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for number, patch_id in enumerate(ids):
            archive.writestr(f"train/{patch_id}.tif", tiffs[number % len(tiffs)])
        labels = io.StringIO()
        csv.writer(labels, lineterminator="\n").writerows([("id", "label"), *((name, n % 2) for n, name in enumerate(ids))])
        archive.writestr("train_labels.csv", labels.getvalue())
