"""The tutorial on IDC as written, on the real patches: from the zip to the report and the maps, with a small network."""

import json

import pytest
from documented import documented

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.tables import read_table

pytestmark = [pytest.mark.trains, pytest.mark.slow]

SMALL = (
    "model.name=test_resnet",
    "model.pretrained=false",
    "model.image_size=null",
    "predict.d4=false",
    "views.policy=none",
    "score.resamples=100",
    "train.device=cpu",
)


def small(words: list[str]) -> list[str]:
    """The command with a network of seconds in place of published weights."""
    if words[0] != "baseline":
        return words
    kept = [word.replace("model.image_size=96", "model.image_size=null") for word in words]
    return kept + [word for setting in SMALL for word in ("--set", setting)]


def test_the_tutorial_runs_on_the_real_zip(shared, command, own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "idc.zip").symlink_to(shared / "idc.zip")
    for words in documented("tutorials/idc.md"):
        done = command(*small(words))
        assert (done.code, done.problems) == (0, []), words
    dataset = open_dataset("data/idc")
    assert (len(dataset.patches), dataset.patches.wsi.nunique()) == (5925, 167)
    # Every patient has a map, each from a fold that never saw it.
    folds = read_table(tmp_path / "runs/idc/folds.parquet")[0].groupby("wsi").fold.nunique()
    assert (folds == 1).all()
    summary = json.loads((tmp_path / "runs/idc/heatmaps/idc/summary.json").read_text())
    assert len(summary["slides"]) == 167
    assert "Left: labels. Right: prob of tumor" in (tmp_path / "runs/idc/report.html").read_text()
    scores = json.loads((tmp_path / "runs/idc/scores.json").read_text())
    assert scores["spatial"]["above_head"]["auroc"]["low"] is not None
