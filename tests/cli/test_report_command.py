"""`pcam-ssl report` on a run that was trained: its numbers are those of scikit-learn."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from pcam_ssl.tables import read_table


@pytest.fixture
def runs(finished, tmp_path, monkeypatch) -> Path:
    """`runs/baseline` and `runs/metric-train` in the current folder, without their pages."""
    for name in ("baseline", "metric-train"):
        shutil.copytree(finished.path, tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "report.html").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_a_page_has_the_operating_point_asked_for(command, runs):
    assert command("report", "runs/baseline", "--no-explain", "--specificity", 0.95).code == 0
    assert "Operating point: specificity of 95%" in (runs / "baseline" / "report.html").read_text()


def test_the_pages_numbers_are_those_of_scikit_learn(command, runs):
    told = json.loads(command("report", "runs/baseline", "--no-explain", "--sensitivity", "0.9", "--json").out)
    page = (runs / "baseline" / "report.html").read_text()
    oof = read_table(runs / "baseline" / "oof.parquet")[0]
    labels = oof.label.astype(int)
    assert f"AUROC {roc_auc_score(labels, oof.prob):.3f}" in page
    assert f"average precision {average_precision_score(labels, oof.prob):.3f}" in page
    thresholds = {
        found["fold"]: np.inf if found["threshold"] is None else found["threshold"]
        for found in told["operating_point"]["thresholds"]
    }
    (right, alarm), (missed, hit) = confusion_matrix(labels, oof.prob >= oof.fold.map(thresholds).astype(float)).tolist()
    assert told["operating_point"]["confusion"] == {"tp": hit, "fn": missed, "fp": alarm, "tn": right}


def test_a_trained_run_shows_its_views_and_its_operating_point(command, runs):
    command("report", "runs/baseline", "--no-explain")
    page = (runs / "baseline" / "report.html").read_text()
    assert "mean of 8" in page
    assert "Confusion matrix, all folds" in page


def test_the_published_split_has_an_operating_point_too(command, train, tmp_path):
    run = train(tmp_path / "official", "cv.scheme=official", "train.epochs=1")
    told = json.loads(command("report", run.path, "--no-explain", "--json").out)["operating_point"]
    (found,) = told["thresholds"]
    assert (found["fold"], found["shared_slides"]) == (0, 0)
    assert sum(told["confusion"].values()) == len(read_table(run.path / "oof.parquet")[0]) == 16
