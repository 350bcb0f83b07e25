"""A finished run, written file by file without training: what a report reads, and nothing more; and a browser that shows the page."""

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from skips import skip_pages

from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import write_json, write_text
from pcam_ssl.recipe.loading import to_yaml
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, write_table

RESAMPLES = 100
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HEADLESS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--allow-file-access-from-files", "--no-first-run"),
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# The page runs no script, so the page around it measures: a frame can be narrower than a window.
FRAME = """<iframe src="{uri}" style="border:0;width:{width_px}px;height:900px"></iframe><pre></pre><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument, style = page.defaultView.getComputedStyle(page.body);
  const letters = [...page.querySelectorAll("svg.chart text")].map(text => text.getBoundingClientRect().height);
  document.querySelector("pre").textContent = JSON.stringify(
    {{over_px: page.documentElement.scrollWidth - page.documentElement.clientWidth, background: style.backgroundColor, smallest_px: Math.min(...letters),
      scripts: page.scripts.length, pictures: page.images.length}});
}}</script>"""


@pytest.fixture
def write_run(tmp_path):
    """write_run(name="run", slides=..., torn=False, skill=2.0, floor_skill=0.5, one_class="", marks={}): a Run of two folds."""

    def write_run(name: str = "run", floor: bool = True, held_out: bool = False, marks: dict | None = None, **choices) -> Run:
        run = Run(tmp_path / name)
        run.path.mkdir()
        oof, scores = _scored(floor, held_out, **choices)
        _write_folds(run, oof)
        write_table(run.path / "oof.parquet", oof)
        write_json(run.paths.scores, scores | (marks or {}))
        write_text(run.paths.recipe, to_yaml(Recipe()))
        versions = {"python": "3.11.7", "pcam-ssl": "0.1.0"}
        dataset = {"dataset": "/data/some slides", "dataset_digest": "d" * 64, "recipe_digest": "e" * 64}
        argv = ["pcam-ssl", "baseline", "--out", "runs/a b"]
        write_json(
            run.paths.provenance,
            {"command": "baseline", "argv": argv, "begun": "2025-01-02T03:04:05+0000", "versions": versions, **dataset},
        )
        return run

    return write_run


def _predictions(
    slides=tuple(f"slide-{i:02}" for i in range(12)),
    torn: bool = False,
    skill: float = 2.0,
    floor_skill: float = 0.5,
    one_class: str = "",
    patches: int = 24,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Predictions of every slide in turn, and the floor's probs; slide `one_class` holds no tumor."""
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(len(slides)), patches)
    names = np.array(slides, dtype=object)[slide]
    labels = np.tile([0, 1, 1], len(slide))[: len(slide)] * (names != one_class)
    logits = 1.5 * skill * (labels - 0.5) + rng.normal(size=len(slide))
    oof = predictions([f"{i:08x}" for i in range(len(slide))], labels, names, 0, logits, probs=expit(logits / 1.5))
    oof["fold"] = pd.array(np.arange(len(slide)) % 2 if torn else slide % 2, dtype="Int8")
    return oof, expit(1.5 * floor_skill * (labels - 0.5) + rng.normal(size=len(slide)))


def _write_folds(run: Run, oof: pd.DataFrame) -> None:
    write_table(run.paths.folds, pd.DataFrame({"id": oof.id, "wsi": oof.wsi, "group": oof.wsi, "fold": oof.fold, "visible": True}))
    for k in (0, 1):
        calibration = {"temperature": 1.5, "n": 48, "n_slides": 2, "reason": None}
        facts = {"fold": k, "epoch": 2, "seconds": 12.5, "train": 96, "inner": 48, "score": 144, "calibration": calibration}
        write_json(run.fold(k) / "fold.json", facts)
        # Fold K tunes on slides that the other fold scores, so never on its own.
        write_table(run.fold(k) / "inner.parquet", oof[oof.fold == 1 - k].head(96).assign(fold=k))
        events = [{"step": e, "epoch": e, "train_loss": 0.7 / e + k / 10, "inner_auroc": 0.6 + 0.1 * e} for e in (1, 2, 3)]
        write_text(run.fold(k) / "metrics.jsonl", "".join(json.dumps(event) + "\n" for event in events))


@functools.cache  # most runs are alike, and scoring one takes longer than all the rest
def _scored(floor: bool, held_out: bool, **choices) -> tuple[pd.DataFrame, dict]:
    """Predictions and what `scores.json` says of them. Do not change either."""
    oof, colour = _predictions(**choices)
    labels = oof.label.to_numpy(np.int64)
    groups = oof.wsi if oof.wsi.notna().all() else None
    report = score_report(oof, groups, RESAMPLES, uncalibrated_logits=oof.logit)
    scores = {
        "scheme": "grouped",
        "grouping": "slides",
        "slides_shared_across_folds": False,
        "selected_on_fold": False,
        "notes": [],
    }
    scores |= {"out_of_fold": report, "floor": None, "above_floor": None, "held_out": {"test": report} if held_out else None}
    if floor:
        scores["floor"] = score_report(oof.assign(prob=colour), groups, RESAMPLES, uncalibrated_logits=oof.logit)
        scores["above_floor"] = paired_differences(labels, colour, oof.prob, groups, RESAMPLES)
    return oof, scores


@pytest.fixture
def edit():
    """edit(path, change): a JSON file after `change(values)` worked on it in place."""

    def edit(path: Path, change) -> None:
        values = json.loads(path.read_text())
        change(values)
        write_json(path, values)

    return edit


@pytest.fixture
def measured(tmp_path, request):
    """measured(path, width_px, dark): what a real browser lays out in a frame of that width; skips where there is none."""
    if CHROMIUM is None:
        skip_pages(request.config, "chromium is not installed")

    def measured(path, width_px: int, dark: bool) -> dict:
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(uri=path.as_uri(), width_px=width_px))
        colours = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        shown = subprocess.run(
            [CHROMIUM, *HEADLESS, colours, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return json.loads(re.search(r"<pre>(.*?)</pre>", shown.stdout)[1])

    return measured
