"""`embed` in two processes over one, and the memory of `embed` and `predict` at millions of patches: python scripts/bench_shares.py [rate] [memory]"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from bench_measure import rate as rate_of
from bench_measure import ratios, take_turns, timed

from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.files import remove_folder

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"
TINY = ("cv.folds=2", "model.name=test_resnet", "model.pretrained=false", "train.epochs=1", "predict.d4=false", "score.floor=false")


FEW = 256
"""Patches whose embedding takes no time beside the start of the command."""


def rate(folder: Path, turns: int, n: int, model: str) -> None:
    """Whole commands: `embed` with a frozen backbone, by two processes of one thread each and by one; and what is left of it without the start."""
    spent = {count: _embedding(folder, turns, count, model) for count in (FEW, n)}
    for name, seconds, patches in (
        ("whole command", spent[n], n),
        (
            "without its start",
            {side: [a - b for a, b in zip(spent[n][side], spent[FEW][side], strict=True)] for side in spent[n]},
            n - FEW,
        ),
    ):
        rates = f"{rate_of(patches, seconds['two'], 'patches')} against {rate_of(patches, seconds['one'], 'patches')}"
        print(f"| {name}: `embed` of {patches:,} patches | {ratios(seconds['one'], seconds['two']).text()} | {rates} |", flush=True)


def _embedding(folder: Path, turns: int, n: int, model: str) -> dict[str, list[float]]:
    dataset = _dataset(folder / f"patches-{n}", n, 96)

    def embed(*launcher: str) -> None:
        env = {"PCAM_SSL_CACHE": tempfile.mkdtemp(dir=folder)}
        _run([*launcher, "-m", "pcam_ssl", "embed", dataset, "--model", model, "--no-pretrained", "--out", folder / "out"], env)
        remove_folder(folder / "out")
        remove_folder(Path(env["PCAM_SSL_CACHE"]))

    return take_turns({"one": timed(embed), "two": timed(lambda: embed(*TORCHRUN))}, turns)


def memory(folder: Path, n: int, verbs: list[str]) -> None:
    """Peak memory of a tenth of `n` patches of 32 px and of all; pages of files that are read do not count, as the system takes them back."""
    write_synthetic(folder / "small", slides=8, test_slides=2, patches=8, size_px=32)
    words = [word for setting in TINY for word in ("--set", setting)]
    _run(["-m", "pcam_ssl", "baseline", "--data", folder / "small", "--out", folder / "run", *words], {})
    for count in (n // 10, n):
        dataset = _dataset(folder / f"patches-{count}", count, 32)
        for verb in verbs:
            more = ["--fold", "0"] if verb == "embed" else []
            begun = time.monotonic()
            peak_mb = _run(
                ["-m", "pcam_ssl", verb, folder / "run", dataset, "--out", folder / f"{count}-{verb}.parquet", *more], {}
            )
            print(f"| `{verb}` of {count:,} patches | {peak_mb:,.0f} MB | {time.monotonic() - begun:,.0f} s |", flush=True)
        remove_folder(dataset)


def _dataset(path: Path, n: int, size_px: int) -> Path:
    """`n` patches of noise, without labels and slides."""
    rng, block = np.random.default_rng(0), 4096
    with DatasetWriter(path, size_px, source="noise", source_format="synthetic", expected=n) as writer:
        # One block of noise, turned by one value a time: drawing it anew takes longer than packing it.
        noise = rng.integers(0, 256, (block, size_px, size_px, 3), np.uint8)
        for begin in range(0, n, block):
            pixels = noise[: min(block, n - begin)] + np.uint8(begin // block % 256)
            known = {"brightness": 0.5, "stain_h": 0.1, "stain_e": 0.1, "od_r": 0.3, "od_g": 0.3, "od_b": 0.3}
            hashes = [f"{number:016x}" for number in range(begin, begin + len(pixels))]
            writer.append(pixels, hashes, "test", statistics={**known, "pixel_hash": hashes, "view_hash": hashes})
    return path


def _run(argv: list, env: dict[str, str]) -> float:
    """Run a command of this checkout to its end; returns the peak of its own memory in MB, without pages of files."""
    env = {**os.environ, **env, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *map(str, argv)], env=env, stdout=subprocess.DEVNULL)
    peak_kb = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak_kb = max([peak_kb, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
        time.sleep(0.1)
    if process.wait():
        raise SystemExit(f"{argv}: exit code {process.returncode}")
    return peak_kb / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=["rate", "memory"], default=["rate", "memory"])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--patches", type=int, help="rate: 6,000; memory: 2,000,000")
    parser.add_argument("--verbs", nargs="*", choices=["embed", "predict"], default=["embed", "predict"], help="memory: of these")
    parser.add_argument("--model", default="resnet18")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if "rate" in options.what:
            rate(Path(folder), options.turns, options.patches or 6_000, options.model)
        if "memory" in options.what:
            memory(Path(folder), options.patches or 2_000_000, options.verbs)


if __name__ == "__main__":
    main()
