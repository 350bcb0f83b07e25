"""Rate of `data tile` over that of the reader alone, and peak memory on a large slide: python scripts/bench_tile.py [rate] [memory]"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import openslide
import tifffile
from bench_measure import rate as rate_of
from bench_measure import ratios, take_turns

from pcam_ssl.files import remove_folder
from pcam_ssl.slides.plan import Cutting, Plan, plan_slide
from pcam_ssl.slides.reader import open_slide
from pcam_ssl.slides.tiling import tile_slides

TILE_PX = 512
# A fresh process, because memory that this one once held counts in its own peak.
PEAK = """
import sys, time
from pathlib import Path
from pcam_ssl.slides.plan import Cutting
from pcam_ssl.slides.tiling import tile_slides
begun = time.perf_counter()
made = tile_slides([Path(sys.argv[1])], Path(sys.argv[2]), Cutting(), workers=2)
seconds = time.perf_counter() - begun
print(len(made), seconds, next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def rate(folder: Path, turns: int) -> None:
    """Tiles of 96 px at 0.97 um/px of a slide that is all tissue, with and without resampling; two threads on each side.

    `reader` is OpenSlide's read_region of each patch's region, turned into an array, as one would write it. `own` is the tool's reader in
    its place, which decodes plain TIFF tiles without OpenSlide.
    """
    for name, mpp in (("a level that fits", 0.97), ("resampled", 0.5)):
        path, edge = folder / f"{name}.tif", round(6000 / mpp)
        _write(path, edge, mpp, [1, 8])
        target = folder / "set"
        plan, _, _ = plan_slide(open_slide(path), Cutting(), None, {})
        assert plan.view.slide.levels[plan.view.level].downsample == 1
        spent: dict[str, list[float]] = {"tool": [], "reader": [], "own": []}

        def tiled(path=path, target=target) -> None:
            tile_slides([path], target, Cutting(), workers=2)

        def alone(path=path, plan=plan) -> None:
            # A handle of its own, as the tool has: the cache of decoded tiles begins empty on all sides.
            opened, edge = openslide.OpenSlide(path), round(96 * plan.view.ratio)
            _read_all(lambda x, y: np.asarray(opened.read_region((x, y), plan.view.level, (edge, edge)))[..., :3], plan, edge)

        def own(path=path, plan=plan) -> None:
            opened, edge = open_slide(path), round(96 * plan.view.ratio)
            _read_all(lambda x, y: opened.read(plan.view.level, x, y, edge, edge), plan, edge)

        def side(name: str, work: Callable[[], None], target=target, spent=spent) -> Callable[[], float]:
            def turn() -> float:
                begun, busy = time.perf_counter(), time.process_time()
                work()
                seconds = time.perf_counter() - begun
                spent[name].append(time.process_time() - busy)
                if target.exists():
                    remove_folder(target)
                return seconds

            return turn

        seconds = take_turns({"tool": side("tool", tiled), "reader": side("reader", alone), "own": side("own", own)}, turns)
        count = len(plan.tiles)
        told = {
            side: f"{rate_of(count, seconds[side], 'patches')}, {1e6 * np.median(spent[side][1:]) / count:.0f} us of CPU"
            for side in spent
        }
        print(f"{name}, {count:,} patches: {'; '.join(f'{side} {each}' for side, each in told.items())}")
        for other in ("reader", "own"):
            wall, busy = ratios(seconds[other], seconds["tool"]), ratios(spent[other][1:], spent["tool"][1:])
            print(f"  tool over {other}: {wall.text()} x; per second of CPU {busy.text()} x", flush=True)


def _read_all(read: Callable[[int, int], np.ndarray], plan: Plan, edge: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda x, y: len(read(x, y)), plan.tiles.x.tolist(), plan.tiles.y.tolist())
        assert sum(done) == edge * len(plan.tiles)


def memory(folder: Path, edge: int) -> None:
    """Peak resident memory on a slide of `edge` x `edge` px at 0.25 um/px, with low levels and without."""
    for name, downs in (("three levels", [1, 4, 16]), ("level 0 alone", [1])):
        path = folder / f"{name}.tif"
        _write(path, edge, 0.25, downs)
        said = subprocess.run([sys.executable, "-c", PEAK, path, folder / "set"], check=True, capture_output=True, text=True).stdout
        count, seconds, peak = said.split()
        bytes_ = path.stat().st_size
        print(
            f"{edge:,} x {edge:,} px, {name} ({bytes_ / 1e6:,.0f} MB): peak {int(peak) / 1024:,.0f} MB, {count} patches in {float(seconds):,.0f} s",
            flush=True,
        )
        remove_folder(folder / "set")
        path.unlink()


def _write(path: Path, edge: int, mpp: float, downs: list[int]) -> None:
    """A pyramid of JPEG tiles with stripes and noise in the colours of tissue, written tile by tile."""
    generator, begun = np.random.default_rng(0), time.perf_counter()
    stripes = np.where(np.arange(TILE_PX)[:, None, None] // 16 % 2, (214, 150, 190), (150, 100, 170))
    tiles = [
        np.clip(np.roll(stripes, 7 * shift, 0) + generator.normal(0, 10, (TILE_PX, TILE_PX, 3)), 0, 255).astype(np.uint8)
        for shift in range(8)
    ]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for down in downs:
            size = edge // down
            count = (-(-size // TILE_PX)) ** 2
            options = {"resolution": (1e4 / mpp / down,) * 2, "resolutionunit": "CENTIMETER", "subfiletype": int(down > 1)}
            shape = {"shape": (size, size, 3), "dtype": np.uint8, "tile": (TILE_PX, TILE_PX)}
            file.write((tiles[k % 8] for k in range(count)), photometric="rgb", compression="jpeg", **shape, **options)
    print(f"wrote {path.name} in {time.perf_counter() - begun:.0f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=["rate", "memory", []], default=[])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--edge", type=int, default=50_000, help="px of the large slide")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-bench-") as folder:
        if "rate" in options.names or not options.names:
            rate(Path(folder), options.turns)
        if "memory" in options.names or not options.names:
            memory(Path(folder), options.edge)


if __name__ == "__main__":
    main()
