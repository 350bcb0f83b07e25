"""Does a command start no slower than with another checkout? CPU time of both, turn by turn.

python scripts/start_times.py ../before . runs/before    # runs/before as `same_runs.py make` made it; prints a markdown table
"""

import argparse
import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

COMMANDS = {
    "--help": ("--help",),
    "compare": ("compare", "baseline", "metric"),
    "report --no-explain": ("report", "baseline", "--no-explain"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, metavar="BEFORE_TREE")
    parser.add_argument("after", type=Path, metavar="AFTER_TREE")
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder that `same_runs.py make` made")
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    trees = [options.before.resolve(), options.after.resolve()]
    for tree in trees:
        if not (tree / "pcam_ssl" / "__main__.py").is_file():
            parser.error(f"{tree}: holds no pcam_ssl")
        # A command that compiles its own modules first would look slow.
        compileall.compile_dir(tree / "pcam_ssl", quiet=1)
    print("| CPU time | before, s | after, s | ratio of medians | ratio by turn |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-start-") as folder:
        # `report` writes into its run.
        # Their dataset goes along, so that pages have their galleries.
        for name in ("baseline", "metric", "slides"):
            shutil.copytree(options.runs / name, Path(folder) / name)
        for name, words in COMMANDS.items():
            # It is over in a twentieth of a second, so few turns say little.
            turns = options.turns * (5 if name == "--help" else 1)
            print(row(name, words, trees, Path(folder), turns), flush=True)


def row(name: str, words: tuple[str, ...], trees: list[Path], folder: Path, turns: int) -> str:
    """A line of the table. The first turn reads files from disk and is not counted; who begins changes from turn to turn."""
    times: list[list[float]] = [[], []]
    for turn in range(turns + 1):
        for side in (0, 1)[:: -1 if turn % 2 else 1]:
            times[side].append(cpu_seconds(words, trees[side], folder))
    before, after = (each[1:] for each in times)
    ratios = [new / old for old, new in zip(before, after, strict=True)]
    ratio = median(after) / median(before)
    return f"| {name} | {median(before):.3f} | {median(after):.3f} | {ratio:.3f} | {min(ratios):.2f} to {max(ratios):.2f} |"


def cpu_seconds(words: tuple[str, ...], tree: Path, folder: Path) -> float:
    """User and system time of a command in a process of its own, run with the package in `tree`."""
    path = [str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "PCAM_SSL_DATA")}
    environment |= {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    # What the script `pcam-ssl` runs.
    command = [sys.executable, "-c", "from pcam_ssl.cli import main; main()", *words]
    started = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    told = started.stderr.read()
    _, status, used = os.wait4(started.pid, 0)
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        sys.exit(f"{tree}: `{' '.join(words)}` ended with exit code {started.returncode}: {told.decode(errors='replace')}")
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
