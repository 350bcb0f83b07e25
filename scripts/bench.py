"""Benchmarks as ratios of one run: `python scripts/bench.py [NAME...] [--data DATASET] [--json] [--write BENCHMARKS.md]`."""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from bench_compare import comparing
from bench_fit import fitting
from bench_formats import formats
from bench_gpu import dihedral_views, exact_search, whole_baseline
from bench_inputs import Inputs, machine
from bench_measure import NotMeasured, Row
from bench_metric import embedding, metric
from bench_packing import batches, importing
from bench_report import report
from bench_rounds import rounds
from bench_scoring import bootstrap, starting, views
from bench_training import against_plain_way, step

from pcam_ssl.errors import UserError
from pcam_ssl.files import write_text
from pcam_ssl.terminal import say

BENCHMARKS = {
    "step": step,
    "formats": formats,
    "article": against_plain_way,
    "batches": batches,
    "import": importing,
    "views": views,
    "metric": metric,
    "embed": embedding,
    "rounds": rounds,
    "help": starting,
    "bootstrap": bootstrap,
    "report": report,
    "compare": comparing,
    "gpu-fit": fitting,
    "gpu-baseline": whole_baseline,
    "gpu-search": exact_search,
    "gpu-d4": dihedral_views,
}
# A GPU's numbers come from another machine than the CPU's, so each table of BENCHMARKS.md is written apart. `formats` has a page section
# of its own, because it measures CPU time.
GPU = [name for name in BENCHMARKS if name.startswith("gpu-")]
TABLES = {"cpu": [name for name in BENCHMARKS if name not in (*GPU, "formats")], "gpu": GPU}
HEADER = ["benchmark", "ratio: median (lowest to highest)", "target", "met", "A", "B", "device", "precision", "threads"]


def main() -> None:
    """Run, print, and where asked write. Exit code 2 for what the user can mend."""
    options = _options()
    names = _names(options.names)
    try:
        _check(names, options)
        with tempfile.TemporaryDirectory(prefix="pcam-ssl-bench-") as folder:
            inputs = Inputs(options.data, Path(folder), options.quick, options.patches, options.vectors)
            rows = {name: run(name, inputs) for name in names}
        if options.json:
            print(json.dumps({"machine": machine(), "rows": [row.to_dict() for name in names for row in rows[name]]}, indent=2))
        else:
            print(table([row for name in names for row in rows[name]]))
        if options.write:
            write(options.write, rows)
    except UserError as error:
        print(*(f"bench: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)


def run(name: str, inputs: Inputs) -> list[Row]:
    """The rows of one benchmark; where it cannot be measured here, a row that says why."""
    say(f"{name}: {' '.join(BENCHMARKS[name].__doc__.split())}")
    begun, rows = time.perf_counter(), []
    try:
        for row in BENCHMARKS[name](inputs):
            rows.append(row)
            say(f"  {row.name}: {row.ratio.text()}, target {row.target}; {row.a}; {row.b}")
    except NotMeasured as reason:
        rows.append(Row(name, reason=str(reason)))
        say(f"  not measured: {reason}")
    say(f"  {time.perf_counter() - begun:.0f} s")
    return rows


def table(rows: list[Row]) -> str:
    """The rows as a markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write(path: Path, rows: dict[str, list[Row]]) -> None:
    """Put each table that was measured whole between its two markers in `path`, the machine above it."""
    text = path.read_text(encoding="utf-8")
    for name, benchmarks in TABLES.items():
        if not set(benchmarks) <= set(rows) or not any(row.ratio for benchmark in benchmarks for row in rows[benchmark]):
            continue
        if name == "gpu" and not torch.cuda.is_available():
            continue
        begin, end = _markers(name)
        before, after = text.partition(begin)[0], text.partition(end)[2]
        measured = table([row for benchmark in benchmarks for row in rows[benchmark]])
        text = f"{before}{begin}\n{machine()}\n\n{measured}\n{end}{after}"
        say(f"{path}: wrote the {name} table")
    write_text(path, text)


def _names(given: list[str]) -> list[str]:
    """The benchmarks to run: those given, `gpu` for all of a GPU; else all, without those of a GPU where there is none."""
    if not given:
        return [name for name in BENCHMARKS if name not in GPU or torch.cuda.is_available()]
    return list(dict.fromkeys(name for each in given for name in (GPU if each == "gpu" else [each])))


def _check(names: list[str], options: argparse.Namespace) -> None:
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise UserError(f"{unknown[0]}: no such benchmark; there are gpu, {', '.join(BENCHMARKS)}")
    if not options.write:
        return
    if set(names) <= set(GPU) and not torch.cuda.is_available():
        raise UserError("--write: no GPU here, and what a CPU computes is no row of the GPU's table; leave it out")
    if options.quick:
        raise UserError("--write: --quick only proves that the benchmarks run; leave it out")
    if not any(set(benchmarks) <= set(names) for benchmarks in TABLES.values()):
        raise UserError("--write replaces a whole table; run without names, or with gpu alone")
    text = options.write.read_text(encoding="utf-8") if options.write.is_file() else ""
    if missing := [marker for name in TABLES for marker in _markers(name) if text.count(marker) != 1]:
        raise UserError(f"{options.write}: must hold the line {missing[0]} once, to show where the table goes")


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- bench {name} begin -->", f"<!-- bench {name} end -->"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks as ratios of one run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"gpu (all of them), {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument(
        "--data", type=Path, help="dataset for step, views, gpu-fit, gpu-d4; default: the Kaggle mini, else synthetic slides"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the tables between the markers of a markdown file")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, two rounds: proves that it runs, measures nothing")
    parser.add_argument("--patches", type=int, metavar="N", help="patches of gpu-baseline; default: 220,000, on a CPU 300")
    parser.add_argument("--vectors", type=int, metavar="N", help="vectors of gpu-search; default: 2,000,000")
    return parser.parse_args()


if __name__ == "__main__":
    main()
