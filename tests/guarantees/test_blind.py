"""Guarantee 2: nothing about fold K's labels reaches fold K's model."""

import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.report.operating_point import operating_point
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.tables import read_table

RECIPES = {
    "plain": [],
    "chosen and slowed by inner slides": ["train.choose=inner", "schedule.name=plateau", "schedule.patience=0", "train.epochs=4"],
    "weighted, averaged and by every view": [
        "method.pos_weight=auto",
        "train.ema_decay=0.9",
        "predict.d4=true",
        "predict.random_views=1",
    ],
    "a linear head on frozen features": ["model.freeze_backbone=true", "optim.name=lbfgs", "cv.inner_folds=3", "predict.d4=true"],
    "a graph of its training patches and pool": [
        "model.freeze_backbone=true",
        "optim.name=lbfgs",
        "cv.inner_folds=2",
        "graph.use=true",
        "data.label_budget=60",
    ],
    "a graph of what it scores, too": [
        "model.freeze_backbone=true",
        "optim.name=lbfgs",
        "cv.inner_folds=2",
        "graph.use=true",
        "graph.transductive=true",
        "data.label_budget=60",
    ],
    "an MLP on frozen features": ["model.freeze_backbone=true", "model.head=mlp", "model.hidden=8", "cv.inner_folds=2"],
}
BLIND = 0


@pytest.fixture(scope="module")
def folds_file(train, tmp_path_factory):
    """Three folds of 10 slides."""
    return train(tmp_path_factory.mktemp("folds") / "run", "cv.folds=3", "train.epochs=1").paths.folds


@pytest.fixture(scope="module")
def scrambled(slides, rewrite, folds_file, tmp_path_factory):
    """The dataset with the labels of fold 0's slides turned around."""
    frame = read_table(folds_file)[0]
    hidden = set(frame.id[frame.fold == BLIND])

    def scramble(patches):
        turned = patches.id.isin(hidden)
        return patches.assign(label=patches.label.where(~turned, 1 - patches.label))

    return rewrite(slides, tmp_path_factory.mktemp("scrambled") / "slides", scramble)


@pytest.fixture(scope="module")
def pair(request, train, scrambled, folds_file, tmp_path_factory):
    """Two runs with the same folds: on true labels, and on scrambled ones."""
    settings = ["cv.folds=3", f"cv.folds_file={folds_file}", *request.param]
    folder = tmp_path_factory.mktemp("blind")
    return train(folder / "true", *settings), train(folder / "scrambled", *settings, data=scrambled)


def weights(run, k: int) -> bytes:
    return (run.fold(k) / "model.safetensors").read_bytes()


def calibration(run, k: int) -> dict:
    return json.loads((run.fold(k) / "model.json").read_text())["calibration"]


def scores_of_patches(run, k: int, name: str) -> pd.DataFrame:
    return read_table(run.fold(k) / f"{name}.parquet")[0][["id", "logit", "prob", "view_std"]]


def losses(run, k: int) -> list[dict]:
    if run.recipe.optim.name == "lbfgs":
        return json.loads((run.fold(k) / "fold.json").read_text())["c_losses"]
    events = [json.loads(line) for line in (run.fold(k) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in event.items() if key != "seconds"} for event in events]


every_recipe = pytest.mark.parametrize("pair", RECIPES.values(), ids=RECIPES, indirect=True, scope="module")


@every_recipe
class TestBlind:
    def test_the_labels_were_scrambled(self, pair):
        true, scrambled = (read_table(run.fold(BLIND) / "oof.parquet")[0] for run in pair)
        assert (true.label + scrambled.label == 1).all()

    def test_the_folds_weights_stay_the_same_to_the_bit(self, pair):
        assert weights(pair[0], BLIND) == weights(pair[1], BLIND)

    def test_its_losses_and_rates_stay_the_same(self, pair):
        assert losses(pair[0], BLIND) == losses(pair[1], BLIND)

    def test_its_calibration_stays_the_same(self, pair):
        assert calibration(pair[0], BLIND) == calibration(pair[1], BLIND)

    @pytest.mark.parametrize("name", ["oof", "test", "inner"])
    def test_its_predictions_stay_the_same_to_the_bit(self, pair, name):
        true, scrambled = (scores_of_patches(run, BLIND, name) for run in pair)
        pd.testing.assert_frame_equal(true, scrambled, check_exact=True)

    def test_its_graph_stays_the_same_to_the_bit(self, pair):
        if not pair[0].recipe.graph.use:
            assert not (pair[0].fold(BLIND) / "oof-graph.parquet").exists()
            return
        graphs = [json.loads((run.fold(BLIND) / "fold.json").read_text())["graph"] for run in pair]
        assert graphs[0] == graphs[1]
        for name in ("oof-graph", "test-graph", "inner-graph"):
            true, scrambled = (scores_of_patches(run, BLIND, name) for run in pair)
            pd.testing.assert_frame_equal(true, scrambled, check_exact=True)

    def test_its_operating_point_calls_the_same_patches(self, pair):
        true, scrambled = (operating_point(read_facts(run), Target("sensitivity", 0.9)) for run in pair)
        assert true.thresholds[BLIND].threshold == scrambled.thresholds[BLIND].threshold
        assert true.rows.called[true.rows.fold == BLIND].equals(scrambled.rows.called[scrambled.rows.fold == BLIND])

    @pytest.mark.parametrize("k", [1, 2])
    def test_other_folds_learn_from_the_labels(self, pair, k):
        assert weights(pair[0], k) != weights(pair[1], k)


@pytest.mark.parametrize("pair", [["train.choose=fold", "train.epochs=6", "optim.lr=1e-2"]], indirect=True)
def test_choosing_on_the_scored_fold_is_not_blind_and_says_so(pair):
    from pcam_ssl.report.summary import run_summary

    for run in pair:
        scores = read_scores(run)
        assert scores["selected_on_fold"] is True
        assert "WARNING: selected_on_fold" in run_summary(run, scores)
    assert weights(pair[0], BLIND) != weights(pair[1], BLIND)
    assert not np.array_equal(scores_of_patches(pair[0], BLIND, "oof").logit, scores_of_patches(pair[1], BLIND, "oof").logit)


def test_weights_chosen_on_the_fold_stay_marked_in_a_run_that_starts_from_them(train, folds_file, tmp_path):
    first = train(tmp_path / "first", "cv.folds=3", f"cv.folds_file={folds_file}", "train.choose=fold", "train.epochs=1")
    second = train(tmp_path / "second", "cv.folds=3", f"cv.folds_file={folds_file}", f"model.init={first.path}", "train.epochs=1")
    assert read_scores(second)["selected_on_fold"] is True
