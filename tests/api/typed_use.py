"""How a user writes against the API; mypy reads it (`make types`), and nothing runs it."""

from pathlib import Path
from typing import assert_type

import numpy as np
import pandas as pd

import pcam_ssl as pcam
from pcam_ssl.evaluation.scores import RunScores, Score, Scores
from pcam_ssl.models.artefact import CalibratedNetwork
from pcam_ssl.report.report import Report
from pcam_ssl.results import Comparison, Predictions, RoundsVerdict
from pcam_ssl.search.search import Found


def section_7() -> None:
    data = pcam.import_dataset("histopathologic-cancer-detection.zip", "data/pcam", wsi="patch_id_wsi.csv")
    assert_type(data, pcam.Dataset)
    base = pcam.train(data, "baseline", {"model.name": "resnet34"}, out="runs/r34")
    assert_type(base, pcam.Run)
    assert_type(base.scores, RunScores)
    assert_type(base.scores["auroc"], Score)
    assert_type(base.oof, pd.DataFrame)
    metric = pcam.train(data, "metric", out=Path("runs/metric"))
    rounds = pcam.pseudo_label(base, rounds=3)
    assert_type(rounds, RoundsVerdict)
    assert_type(rounds.best, pcam.Run)
    assert_type(pcam.compare([base, metric, rounds.best]), Comparison)
    blend = pcam.blend([rounds.best, metric.table("knn")], method="weights", out="runs/blend")
    assert_type(pcam.search(metric, ids=["0a1b2c"], k=10), Found)
    assert_type(pcam.report(blend), Report)
    assert_type(pcam.report([base, blend]), list[Report])
    assert_type(blend.submission("submission.csv"), Path)


def the_rest(run: pcam.Run, patches: np.ndarray) -> None:
    assert_type(run.predict(patches), Predictions)
    assert_type(run.networks[0], CalibratedNetwork)
    assert_type(run.recipe, pcam.Recipe)
    assert_type(run.dataset, pcam.Dataset)
    assert_type(pcam.scores([0, 1], [0.2, 0.8], ["a", "b"]), Scores)
    try:
        pcam.open_run("nowhere")
    except pcam.UserError as error:
        assert_type(error.where, str)
    pcam.train(out="runs/a", flod=1)  # type: ignore[call-arg]
    pcam.train("data", "baseline", [], "runs/a")  # type: ignore[call-arg]
