"""Do two versions of the package make the same runs, to the bit?

python scripts/same_runs.py make runs/before --package ../before    # minutes of one core
python scripts/same_runs.py make runs/after
python scripts/same_runs.py compare runs/before runs/after          # exit 1 where a number differs
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from same_files import MADE, Difference, compare_folders

ROOT = Path(__file__).resolve().parents[1]
SHOWN = Path("shown")
CLOCK = "2000-01-01T00:00:00+0000"
TINY = {
    "cv.folds": 3,
    "model.name": "test_resnet",
    "model.pretrained": "false",
    "optim.lr": "3e-3",
    "train.epochs": 5,
    "train.batch_size": 32,
    "train.precision": "fp32",
    "train.device": "cpu",
    "score.resamples": 200,
}
BUDGET = {"data.label_budget": 320}
# Each round adds patches, and no rule stops before the second.
ROUNDS = {
    "pseudo.precision": "null",
    "pseudo.k_best": 40,
    "pseudo.agreement": "true",
    "pseudo.balance": "none",
    "pseudo.slide_cap": 6,
    "pseudo.weight": "softmatch",
    "pseudo.mix": 0.4,
    "pseudo.planted_stop": "false",
}
NEVER_STOP = {
    "pseudo.stop_worse": "false",
    "pseudo.stop_share": "null",
    "pseudo.stop_ratio": "null",
    "pseudo.stop_flips": "null",
}
# All folds together, and what the first does not do.
POOLED = {
    "pseudo.precision": "null",
    "pseudo.top_share": 0.4,
    "pseudo.balance": "none",
    "pseudo.view_std": 1.0,
    "pseudo.round_cap": 0.3,
    "pseudo.label": "soft",
    "pseudo.planted_share": 0,
    "train.epochs": 2,
}
RUNS = ("baseline", "metric", "rounds/round-2", "blend", "official", "random")
BLENDS = ("mean", "rank-mean", "logit-mean", "greedy")


@dataclass(frozen=True)
class Step:
    """A command, and the file in `shown/` that takes what it prints; what it says on stderr goes beside it."""

    shown: str
    words: tuple[str, ...]


def main() -> int:
    """0 where it was made, or no number differs; 1 otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making = commands.add_parser("make", help="make six small runs, and what every command shows of them")
    making.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    making.add_argument("--package", type=Path, default=ROOT, metavar="TREE", help="checkout to run (default: this one)")
    comparing = commands.add_parser("compare", help="compare two such folders file by file")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--words", action="store_true", help="also show which lines of texts and pages differ")
    options = parser.parse_args()
    if options.command == "make":
        return make(options.folder, options.package.resolve())
    for folder in (options.before, options.after):
        if not (folder / MADE).is_file():
            parser.error(f"{folder}: holds no {MADE}; `make {folder}` writes it last")
    return show(compare_folders(options.before, options.after), options.words)


def make(folder: Path, package: Path) -> int:
    """Run every step in `folder` with the package in `package`; 1 where a step ends with a bug."""
    if folder.exists() and any(folder.iterdir()):
        sys.exit(f"{folder}: is not empty; delete it or name another folder")
    if not (package / "pcam_ssl" / "__main__.py").is_file():
        sys.exit(f"--package {package}: holds no pcam_ssl")
    (folder / SHOWN).mkdir(parents=True, exist_ok=True)
    print(f"{folder}: with {package}", flush=True)
    done = []
    # The later steps name patches of the dataset that the first ones make.
    for part in (data_steps, training_steps, showing_steps, refused_steps):
        done += [_run(step, folder, package) for step in part(folder)]
        if part is training_steps:
            stop_clocks(folder)
    facts = {"folder": str(folder.resolve()), "package": str(package), "commands": done}
    (folder / MADE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    bugs = [each for each in done if each["exit"] == 1]
    print(f"{len(done)} commands in {sum(each['seconds'] for each in done):.0f} s, {len(bugs)} ended with a bug")
    return min(len(bugs), 1)


def show(differences: list[Difference], words: bool) -> int:
    """Print a line a difference and a summary; 1 where data differ or a file is on one side only."""
    for kind, title in (("data", "DATA"), ("content", "PAGES: numbers, rows, pictures"), ("words", "WORDS")):
        found = [each for each in differences if each.kind == kind]
        print(f"{title}: {f'{len(found)} differences' if found else 'no difference'}")
        for each in found:
            print(f"  {each.file}: {each.text}")
            if words and each.lines:
                print(*(f"      {line}" for line in each.lines), sep="\n")
    return int(any(each.kind == "data" for each in differences))


def data_steps(folder: Path) -> Iterator[Step]:
    """Labelled slides with a labelled held-out split; and slides in the three splits of PCam."""
    # Of 64 px the last map of the network has several cells, so that Grad-CAM has a shape.
    common = ("--size", 64, "--stain-shift", 0.4)
    yield step("synth", "data", "synth", "slides", "--slides", 24, "--patches", 20, "--test-slides", 5, "--label-test", *common)
    splits = ("--slides", 10, "--valid-slides", 5, "--test-slides", 4, "--patches", 16, "--seed", 1)
    yield step("synth-official", "data", "synth", "splits", *splits, *common)
    yield step("data-show", "data", "show", "slides", "--sheet", SHOWN / "sheet.png")
    yield step("data-show.json", "data", "show", "splits", "--json")
    yield step("recipes-list", "recipes", "list")
    yield step("recipes-keys", "recipes", "show", "baseline", "--keys")
    for name in ("article-resnet34", "metric", "pseudo-label", "fixmatch", "mean-teacher", "mixmatch"):
        yield step(f"recipes-show-{name}", "recipes", "show", name)


def training_steps(folder: Path) -> Iterator[Step]:
    """The six runs."""
    on_slides = ("--data", "slides")
    yield step("baseline", "baseline", *on_slides, *_set(TINY | BUDGET | {"neighbours.use": "true"}), "--out", "baseline")
    yield step("metric", "metric-train", *on_slides, *_set(TINY | BUDGET | {"method.projection": 32}), "--out", "metric")
    yield step("random", "baseline", *on_slides, *_set(TINY | BUDGET | {"cv.scheme": "random"}), "--out", "random")
    official = {"cv.scheme": "official", "train.choose": "inner", "predict.random_views": 2, "method.loss": "focal"}
    yield step("official", "baseline", "--data", "splits", *_set(TINY | official), "--out", "official")
    yield step("rounds", "pseudo-label", "baseline", "--rounds", 2, *_set(ROUNDS | NEVER_STOP), "--out", "rounds")
    pooled = ("--pooled", *_set(POOLED | NEVER_STOP), "--out", "pooled", "--json")
    yield step("rounds-pooled.json", "pseudo-label", "metric", "--rounds", 1, *pooled)
    yield step("blend", "blend", "baseline", "metric", "metric:knn", "--method", "weights", "--out", "blend")
    for method in BLENDS:
        yield step(
            f"blend-{method}.json", "blend", "baseline", "metric:knn", "--method", method, "--out", f"blend-{method}", "--json"
        )


def stop_clocks(folder: Path) -> None:
    """Set every time in the runs to the same value, so that pages and tables which show it are the same."""
    files = (path for pattern in ("fold.json", "run.json", "metrics.jsonl") for path in folder.rglob(pattern))
    for path in files:
        text = re.sub(r'("seconds": )[\d.e-]+', r"\g<1>0.5", path.read_text(encoding="utf-8"))
        path.write_text(re.sub(r'("(?:begun|ended)": )"[^"]*"', rf'\g<1>"{CLOCK}"', text), encoding="utf-8")


def showing_steps(folder: Path) -> Iterator[Step]:
    """What people see of the runs, as text, JSON and page."""
    patches = pd.read_parquet(folder / "slides" / "patches.parquet")
    by_split = {split: rows.groupby("label").id.first().tolist() for split, rows in patches.groupby("split")}
    ids = [word for each in by_split["train"] + by_split["test"] for word in ("--id", each)]
    in_pool = by_split["test"][1]
    again = ("pseudo-label", "baseline", "--rounds", 2, *_set(ROUNDS | NEVER_STOP), "--out", "rounds")
    yield step("rounds-explain", *again, "--explain", in_pool)
    yield step("report-operating-point.md", "report", "metric", "--specificity", 0.9, "--md")
    yield step("report", "report", "baseline", "--no-explain")
    for run in RUNS:
        name = run.replace("/", "-")
        yield step(f"report-{name}.md", "report", run, "--no-explain", "--md")
        # Last: the page in the run folder is then the full one.
        yield step(f"report-{name}.json", "report", run, "--json")
    yield step("report-others", "report", "rounds", "rounds/round-1", *(f"blend-{method}" for method in BLENDS))
    compared = ("compare", "baseline", "metric", "metric:knn", "rounds/round-1", "rounds/round-2", "blend")
    yield step("compare", *compared, "--html", SHOWN / "compare.html")
    yield step("compare.json", *compared, "--json")
    found = ("search", "metric", *ids, "-k", 5)
    yield step("search", *found)
    yield step("search.json", *found, "--json")
    yield step("search-page", *found, "--html", SHOWN / "search.html")
    yield step("search-source.json", "search", "metric", "--source", "splits", "-k", 2, "--any-slide", "--json")
    yield step("audit", "data", "audit", "slides")
    yield step("audit-run", "data", "audit", "slides", "--run", "metric", "--html", SHOWN / "audit.html")
    yield step("audit-run.json", "data", "audit", "slides", "--run", "metric", "--json")
    yield step("audit-random", "data", "audit", "slides", "--run", "random")
    yield step("explain", "explain", "baseline", *ids, "--out", "explained")
    yield step("explain.json", "explain", "metric", *ids, "--out", "explained-metric", "--json")
    yield step("explain-fold", "explain", "baseline", "--whole-fold", 0)
    yield step("explain-fold.json", "explain", "baseline", "--whole-fold", 1, "--json")
    yield step("predict", "predict", "baseline", "splits", "--out", "predicted/baseline.parquet")
    yield step("predict-blend.json", "predict", "blend", "splits", "--split", "valid", "--out", "predicted/blend.parquet", "--json")
    yield step("predict-rounds", "predict", "rounds", "splits", "--split", "test", "--out", "predicted/rounds.parquet")
    yield step("embed.json", "embed", "metric", "splits", "--split", "train", "--out", "embedded/metric", "--json")
    frozen = ("--model", "test_resnet", "--no-pretrained", "--knn")
    yield step("embed-frozen", "embed", *frozen, "slides", "--out", "embedded/frozen")
    yield step("export", "export", "metric", "--parquet", "exported.parquet", "--split", "test")
    yield step("explore", "explore", "metric", "--out", "explored.parquet", "--neighbours", 3)


def refused_steps(folder: Path) -> Iterator[Step]:
    """What a slip of the user gets: exit code 2 and a line."""
    yield step("refused-key", "baseline", "--data", "slides", "--set", "train.epoch=3")
    yield step("refused-another-recipe", "baseline", "--data", "slides", *_set(TINY), "--out", "baseline")
    yield step("refused-id", "search", "metric", "--id", "nobody")
    yield step("refused-run", "report", "nowhere")
    yield step("refused-compare", "compare", "baseline", "official")


def step(shown: str, *words) -> Step:
    """A Step; what is printed goes to `shown/SHOWN`, with .txt where it has no ending."""
    return Step(shown if shown.endswith((".json", ".md")) else f"{shown}.txt", tuple(map(str, words)))


def _set(settings: dict) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def _run(step: Step, folder: Path, package: Path) -> dict:
    """Exit code and time of a step. Python's hash seed stays free: no number may hang on it."""
    # What an older package needs and is no longer installed may lie on the caller's path.
    path = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    environment = keep | {
        "PYTHONPATH": os.pathsep.join(path),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-m", "pcam_ssl", *step.words]
    out, err = folder / SHOWN / step.shown, folder / SHOWN / f"{step.shown}.stderr"
    begun = time.monotonic()
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        code = subprocess.run(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr).returncode
    seconds = round(time.monotonic() - begun, 1)
    print(f"  {seconds:5.1f} s  exit {code}  {step.shown}: {' '.join(step.words[:3])}", flush=True)
    return {"shown": step.shown, "words": step.words, "exit": code, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
