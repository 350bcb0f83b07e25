"""Finished runs written file by file, without training: what compare and blend read, and nothing more."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import digest_text, write_json, write_text
from pcam_ssl.recipe.loading import load_recipe, to_yaml
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, write_table

SLIDES, PATCHES, FOLDS = 8, 15, 2
N = SLIDES * PATCHES
IDS = [f"{i:04x}" for i in range(N)]
LABELS = np.tile([0, 1, 1], N)[:N]
WSI = np.repeat([f"slide-{k}" for k in range(SLIDES)], PATCHES).astype(object)
FOLD = np.repeat(np.arange(SLIDES) % FOLDS, PATCHES)


def drawn(seed: int, skill: float = 2.0) -> np.ndarray:
    """Logits [N] of a run of that skill."""
    return skill * (LABELS - 0.5) + np.random.default_rng(seed).normal(size=N)


def write_scored(
    path: Path,
    logits: np.ndarray | None = None,
    *,
    seed: int = 0,
    skill: float = 2.0,
    ids=IDS,
    labels=LABELS,
    wsi=WSI,
    fold=FOLD,
    dataset: str = "d",
    test_labels: bool = False,
    test: bool = True,
    marks: dict | None = None,
    settings: tuple[str, ...] = (),
) -> Run:
    """A Run of two folds at `path`; probs are those of `logits` at temperature 2, so that raw and calibrated ones differ."""
    run, logits = Run(path), drawn(seed, skill) if logits is None else logits
    recipe = load_recipe(None, ["score.resamples=100", "cv.folds=2", "score.floor=false", *settings])
    digest = digest_text(str(path))
    facts = {"recipe_digest": digest, "dataset_digest": dataset * 64, "dataset": f"/data/{dataset}", "selected_on_fold": False}
    facts |= {key: value for key, value in (marks or {}).items() if key in facts}
    write_text(run.paths.recipe, to_yaml(recipe))
    folds = {
        "id": ids,
        "wsi": pd.array(wsi, dtype="str"),
        "group": wsi,
        "fold": fold,
        "visible": True,
        "inner_0": False,
        "inner_1": False,
    }
    write_table(run.paths.folds, pd.DataFrame(folds))
    oof = predictions(ids, labels, wsi, 0, logits, np.full(len(ids), 0.1), expit(logits / 2))
    oof["fold"] = pd.array(fold, dtype="Int8")
    write_table(run.path / "oof.parquet", oof)
    held_out = _write_test(run, seed, skill, test_labels) if test else None
    groups = oof.wsi if oof.wsi.notna().all() else None
    scores = {"scheme": "grouped", "grouping": "slides", "slides_shared_across_folds": False, "notes": [], **facts}
    scores |= {"out_of_fold": score_report(oof, groups, 100), "floor": None, "above_floor": None, "held_out": held_out}
    write_json(run.paths.scores, scores | (marks or {}))
    for k in range(FOLDS):
        lines = [{"step": 5 * e, "epoch": e, "seconds": 2.0, "train_loss": 1 / e + k, "inner_auroc": 0.6 + e / 10} for e in (1, 2)]
        write_text(run.fold(k) / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        calibration = {"temperature": 2.0, "n": 15, "n_slides": 1, "reason": None}
        write_json(run.fold(k) / "fold.json", {"fold": k, "epoch": 2 - k, "seconds": 4.0, "calibration": calibration})
    info = {"command": "baseline", "argv": ["pcam-ssl", "baseline"], "status": "done", "device": "cpu", **facts}
    write_json(run.paths.provenance, info | {"begun": "2026-01-02T03:04:05+0000", "versions": {"pcam-ssl": "0.1.0"}})
    return run


def _write_test(run: Run, seed: int, skill: float, labelled: bool) -> dict | None:
    """40 test patches of 4 slides by both folds and their mean; scores where they have labels."""
    rng, n = np.random.default_rng([seed, 1]), 40
    truth, wsi = np.arange(n) % 2, np.repeat([f"held-{k}" for k in range(4)], 10)
    labels = truth if labelled else [None] * n
    parts, logits = [], []
    for k in (0, 1):
        logits.append(skill * (truth - 0.5) + rng.normal(size=n))
        parts.append(predictions([f"t{i}" for i in range(n)], labels, wsi, k, logits[k], probs=expit(logits[k] / 2)))
    mean = np.mean(logits, axis=0)
    parts.append(predictions([f"t{i}" for i in range(n)], labels, wsi, -1, mean, probs=expit(mean / 2)))
    write_table(run.path / "test.parquet", pd.concat(parts, ignore_index=True))
    return {"test": score_report(parts[-1], parts[-1].wsi, 100)} if labelled else None
