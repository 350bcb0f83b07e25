"""`graph.use`: a fold's labels spread over its training patches and its pool; what it scores, and what is hidden, stays outside."""

import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.api import metric_train
from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.blending.predict import predict_source
from pcam_ssl.cross_validation import graph_scores
from pcam_ssl.cross_validation.graph_scores import node_rows
from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.folds import fold_unit, labelled_rows, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.neighbors.knn import binary_nll
from pcam_ssl.neighbors.propagation import Graph
from pcam_ssl.report.summary import run_summary
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.tables import read_predictions

pytestmark = pytest.mark.trains

HEADS = ("model.freeze_backbone=true", "optim.name=lbfgs", "cv.inner_folds=2", "features.layers=stages")
GRAPH = ("graph.use=true", "data.label_budget=64")
FIXED = ("graph.k=4", "graph.alpha=0.8", "graph.power=2")


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache):
    """Features of this file alone."""


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A finished run of linear heads with a graph of fixed values. Do not write into it."""
    return train(tmp_path_factory.mktemp("runs") / "graph", *HEADS, *GRAPH, *FIXED)


def facts(run, k: int = 0) -> dict:
    return json.loads((run.fold(k) / "fold.json").read_text())["graph"]


def units(run, data):
    dataset = open_dataset(data)
    folds = read_folds(run.paths.folds, dataset.patches)
    return dataset, folds, [fold_unit(folds, k) for k in range(folds.n_folds)]


def test_tables_hold_what_the_heads_tables_hold(run):
    for k in (0, 1):
        for name in ("inner", "oof", "test"):
            head, graph = (read_predictions(run.fold(k) / f"{name}{end}.parquet") for end in ("", "-graph"))
            pd.testing.assert_frame_equal(head[["id", "label", "wsi", "fold"]], graph[["id", "label", "wsi", "fold"]])
    assert run.table("graph").oof.id.tolist() == run.oof.id.tolist()
    assert run.table("graph").test.groupby("fold").id.nunique().to_dict() == {-1: 16, 0: 16, 1: 16}


def test_nodes_are_training_patches_and_pool_and_nothing_of_a_scored_or_inner_slide(run, slides):
    dataset, folds, whole = units(run, slides)
    for unit in (each for fold in whole for each in (fold, *fold.parts)):
        trained, pool = node_rows(run.recipe, dataset, folds, unit)
        kept = folds.frame[unit.held_out]
        nodes = pd.concat([trained, pool])
        assert len(pool) and pool.label.isna().all() and not nodes.id.duplicated().any()
        assert set(trained.id) == set(folds.frame.id[unit.train])
        assert not set(nodes.wsi) & set(kept.wsi)
        assert "test" not in set(nodes.split)


def test_scores_are_those_of_the_nodes_by_hand(run, slides):
    dataset, folds, (unit, _) = units(run, slides)
    trained, pool = node_rows(run.recipe, dataset, folds, unit)
    embedder, pixels = run_embedder(run, 0, "cpu"), Pixels(slides / PIXELS)
    scored = labelled_rows(dataset.patches)[unit.score]
    nodes, queries = (embedder.embed(pixels, rows.row.to_numpy()) for rows in (pd.concat([trained, pool]), scored))
    centre = nodes.mean(axis=0)
    nodes, queries = ((each - centre) / np.linalg.norm(each - centre, axis=1, keepdims=True) for each in (nodes, queries))

    def nearest(asked, k):
        cosine = asked @ nodes.T
        rows = np.argsort(-cosine, axis=1)[:, :k]
        return np.take_along_axis(cosine, rows, axis=1), rows

    labels = np.append(trained.label.to_numpy(int), np.full(len(pool), -1))
    solved = Graph.of(*nearest(nodes, 5), labels, 2.0).spread(0.8)
    ours = read_predictions(run.fold(0) / "oof-graph.parquet")
    assert ours.id.tolist() == scored.id.tolist()
    # Embeddings of the run come from features in float16.
    theirs = solved.logits_of(*nearest(queries, 4))
    assert np.corrcoef(ours.logit, theirs)[0, 1] > 0.99
    assert facts(run)["nodes"] == len(labels) and facts(run)["labelled"] == len(trained)


def test_probs_are_calibrated_on_inner_slides(run):
    temperature = facts(run)["calibration"]["temperature"]
    for name in ("inner", "oof", "test"):
        table = read_predictions(run.fold(0) / f"{name}-graph.parquet")
        np.testing.assert_allclose(table.prob, 1 / (1 + np.exp(-table.logit / temperature)))
    assert facts(run)["calibration"]["n"] == len(read_predictions(run.fold(0) / "inner-graph.parquet"))


def test_without_the_pool_only_training_patches_are_nodes(train, tmp_path, slides):
    run = train(tmp_path / "run", *HEADS, *GRAPH, *FIXED, "graph.pool=false", only=[0])
    assert facts(run)["nodes"] == facts(run)["labelled"] == json.loads((run.fold(0) / "fold.json").read_text())["train"]


def test_k_alpha_and_power_are_those_of_the_lowest_inner_nll(train, run, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_scores, "KS", (2, 9))
    monkeypatch.setattr(graph_scores, "ALPHAS", (0.3, 0.95))
    monkeypatch.setattr(graph_scores, "POWERS", (2.0,))
    settings = (*HEADS, *GRAPH, f"cv.folds_file={run.paths.folds}")
    chosen = facts(train(tmp_path / "chosen", *settings, only=[0]))["choice"]
    losses = {}
    for k in (2, 9):
        for alpha in (0.3, 0.95):
            fixed = train(tmp_path / f"{k}-{alpha}", *settings, f"graph.k={k}", f"graph.alpha={alpha}", "graph.power=2", only=[0])
            inner = read_predictions(fixed.fold(0) / "inner-graph.parquet")
            losses[k, alpha] = binary_nll(inner.label.to_numpy(int), inner.logit)
    best = min(losses, key=losses.get)
    assert len(set(losses.values())) == 4
    assert ((chosen["k"], chosen["alpha"]), chosen["nll"]) == (best, pytest.approx(losses[best]))


def test_the_scale_is_that_of_the_lowest_nll():
    rng = np.random.default_rng(0)
    log_odds, prior = rng.normal(size=400), np.full(400, -0.5)
    labels = (rng.uniform(size=400) < 1 / (1 + np.exp(-(prior + 3 * log_odds)))).astype(int)
    scale = graph_scores.best_scale(prior, log_odds, labels)
    losses = {each: binary_nll(labels, prior + each * log_odds) for each in (scale / 1.1, scale, scale * 1.1)}
    assert 2 < scale < 4.5 and min(losses, key=losses.get) == scale


def test_the_scores_stand_in_summary_report_and_scores_file(run):
    scores = json.loads(run.paths.scores.read_text())
    assert scores["graph"]["out_of_fold"]["n"] == len(run.oof)
    assert "auroc" in scores["graph"]["above_head"]
    assert "label propagation" in run_summary(run, scores)


def test_a_metric_run_without_a_classifier_has_a_graph_too(slides, tiny_recipe, tmp_path):
    settings = ("method.name=metric", "method.projection=8", "method.classify=false", "neighbours.k=5", "train.batch_size=8")
    run = metric_train(slides, tiny_recipe(*settings, "graph.use=true", *FIXED), out=tmp_path / "metric")
    scores = json.loads(run.paths.scores.read_text())
    assert set(scores["neighbours"]) == {"retrieval"}
    assert run.table("graph").oof.id.tolist() == run.oof.id.tolist()
    assert "difference to kNN" in run_summary(run, scores)
    assert (run.path / "refit" / "inner-graph.parquet").exists()


class TestBlends:
    @pytest.fixture(scope="class")
    def blend(self, run, tmp_path_factory):
        return blend_runs([str(run.path), f"{run.path}:graph"], tmp_path_factory.mktemp("blends") / "blend", "logit-mean")

    def test_new_patches_get_what_the_test_split_got(self, blend, slides, tmp_path):
        predict_source(blend.path, slides, tmp_path / "new.parquet", split="test", device="cpu")
        ours, theirs = (
            read_predictions(path).set_index(["id", "fold"]).prob
            for path in (tmp_path / "new.parquet", blend.path / "test.parquet")
        )
        np.testing.assert_allclose(ours, theirs.loc[ours.index], atol=0.03)

    def test_inner_slides_are_blended(self, blend, run):
        tables = [
            read_predictions(path / "fold-0" / f"{name}.parquet")
            for path, name in ((run.path, "inner"), (run.path, "inner-graph"), (blend.path, "inner"))
        ]
        logits = [np.log(table.prob / (1 - table.prob)) for table in tables]
        np.testing.assert_allclose(logits[2], (logits[0] + logits[1]) / 2, atol=1e-9)

    def test_pseudo_labels_from_it_are_refused(self, blend, command, tmp_path):
        done = command("pseudo-label", blend.path, "--out", tmp_path / "rounds")
        assert done.code == 2 and ":graph, and label propagation cannot label a pool" in done.err


class TestRefused:
    @pytest.mark.parametrize(
        ("setting", "key"),
        [
            ("graph.k=0", "graph.k"),
            ("graph.alpha=1", "graph.alpha"),
            ("graph.power=0", "graph.power"),
            ("graph.use=maybe", "graph.use"),
        ],
    )
    def test_a_value_out_of_bounds(self, tiny_recipe, setting, key):
        with pytest.raises(UserError, match=key):
            tiny_recipe(setting)

    def test_k_larger_than_the_graph(self, train, tmp_path):
        with pytest.raises(UserError, match=r"graph.k is 500, the graph of fold-0 has \d+ patches; lower graph.k to \d+ or less"):
            train(tmp_path / "run", *HEADS, *GRAPH, "graph.k=500")
        assert not (tmp_path / "run").exists()

    def test_a_graph_larger_than_memory(self, train, tmp_path, monkeypatch):
        monkeypatch.setattr(graph_scores, "available_memory", lambda: 5000)
        with pytest.raises(UserError, match=r"takes .* GB of memory.*lower graph.k to \d+, or set graph.pool=false"):
            train(tmp_path / "run", *HEADS, *GRAPH, *FIXED)
        assert not (tmp_path / "run").exists()

    def test_a_table_that_the_run_lacks(self, finished, tmp_path):
        with pytest.raises(UserError, match=r"oof-graph.parquet is not in the run; train with graph.use=true"):
            blend_runs([f"{finished.path}:graph"], tmp_path / "blend")


def test_memory_that_is_there_is_told():
    assert 10**8 < graph_scores.available_memory() < 10**14
