"""`graph.transductive`: scored patches are nodes without a label, inner patches are treated the same, and every score of it is marked."""

import json

import numpy as np
import pytest

from pcam_ssl.api import report
from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.blending.predict import predict_source
from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.compare.report import compare_text, page
from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.cross_validation.graph_scores import node_rows
from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.folds import fold_unit, labelled_rows, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.neighbors.propagation import Graph
from pcam_ssl.recipe.loading import recipe_digest
from pcam_ssl.report.summary import run_summary
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.tables import read_predictions

pytestmark = pytest.mark.trains

HEADS = ("model.freeze_backbone=true", "optim.name=lbfgs", "cv.inner_folds=2", "features.layers=stages")
GRAPH = ("graph.use=true", "data.label_budget=64", "graph.k=4", "graph.alpha=0.8", "graph.power=2")
TRANSDUCTIVE = (*HEADS, *GRAPH, "graph.transductive=true")
MARK = "transductive: the scored patches were in the graph of label propagation"


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache):
    """Features of this file alone."""


@pytest.fixture(scope="module")
def data(slides, rewrite, tmp_path_factory):
    """The tiny slides with labels on the test split too."""

    def label_test(patches):
        return patches.assign(label=patches.label.mask(patches.split == "test", (patches.row % 2).astype("Int8")))

    return rewrite(slides, tmp_path_factory.mktemp("transductive") / "set", label_test)


@pytest.fixture(scope="module")
def run(train, data, tmp_path_factory):
    """A finished run with a transductive graph. Do not write into it."""
    return train(tmp_path_factory.mktemp("runs") / "first", *TRANSDUCTIVE, data=data)


@pytest.fixture(scope="module")
def blend(run, tmp_path_factory):
    return blend_runs([str(run.path), f"{run.path}:graph"], tmp_path_factory.mktemp("blends") / "blend", "logit-mean")


def units(run, data):
    dataset = open_dataset(data)
    folds = read_folds(run.paths.folds, dataset.patches)
    return dataset, folds, [fold_unit(folds, k) for k in range(folds.n_folds)]


def facts(run, k: int = 0) -> dict:
    return json.loads((run.fold(k) / "fold.json").read_text())["graph"]


def test_scored_and_inner_patches_are_nodes_without_a_label(run, data):
    dataset, folds, whole = units(run, data)
    for unit in (each for fold in whole for each in (fold, *fold.parts)):
        trained, others = node_rows(run.recipe, dataset, folds, unit)
        assert set(trained.id) == set(folds.frame.id[unit.train])
        assert others.label.isna().all() and not set(trained.id) & set(others.id) and not others.id.duplicated().any()
        assert set(folds.frame.id[unit.score | (unit.inner & ~unit.train)]) <= set(others.id)
        assert set(dataset.patches.id[dataset.patches.split == "test"]) <= set(others.id)


def test_scores_are_those_of_their_own_nodes_by_hand(run, data):
    dataset, folds, (unit, _) = units(run, data)
    trained, others = node_rows(run.recipe, dataset, folds, unit)
    rows = np.concatenate([trained.row, others.row])
    nodes = run_embedder(run, 0, "cpu").embed(Pixels(data / PIXELS), rows)
    nodes = nodes - nodes.mean(axis=0)
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    cosine = nodes @ nodes.T
    nearest = np.argsort(-cosine, axis=1)[:, :5]
    labels = np.append(trained.label.to_numpy(int), np.full(len(others), -1))
    logits = Graph.of(np.take_along_axis(cosine, nearest, axis=1), nearest, labels, 2.0).spread(0.8).logits()
    place = {each: number for number, each in enumerate([*trained.id, *others.id])}
    for name in ("oof", "test"):
        ours = read_predictions(run.fold(0) / f"{name}-graph.parquet")
        # Embeddings of the run come from features in float16.
        assert np.corrcoef(ours.logit, logits[[place[each] for each in ours.id]])[0, 1] > 0.99
    assert (facts(run)["nodes"], facts(run)["labelled"]) == (len(labels), len(trained))


def test_inner_patches_read_their_own_nodes_too(run, data):
    dataset, folds, (unit, _) = units(run, data)
    embedder, pixels = run_embedder(run, 0, "cpu"), Pixels(data / PIXELS)
    inner = read_predictions(run.fold(0) / "inner-graph.parquet").set_index("id")
    part = unit.parts[0]
    trained, others = node_rows(run.recipe, dataset, folds, part)
    nodes = embedder.embed(pixels, np.concatenate([trained.row, others.row]))
    nodes = nodes - nodes.mean(axis=0)
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    cosine = nodes @ nodes.T
    nearest = np.argsort(-cosine, axis=1)[:, :5]
    labels = np.append(trained.label.to_numpy(int), np.full(len(others), -1))
    solved = Graph.of(np.take_along_axis(cosine, nearest, axis=1), nearest, labels, 2.0).spread(0.8)
    ids = labelled_rows(dataset.patches).id[part.inner]
    place = {each: number for number, each in enumerate([*trained.id, *others.id])}
    theirs = solved.logits()[[place[each] for each in ids]]
    # The backbone is frozen, so the embedding of the fold is that of its inner networks.
    assert np.corrcoef(inner.logit.loc[ids], theirs)[0, 1] > 0.99


def test_labels_of_the_test_split_have_no_influence(run, train, data, slides, tmp_path):
    other = train(tmp_path / "unlabelled", *TRANSDUCTIVE, f"cv.folds_file={run.paths.folds}", data=slides)
    for name in ("oof-graph", "test-graph", "inner-graph"):
        ours, theirs = (read_predictions(each.fold(0) / f"{name}.parquet") for each in (run, other))
        assert ours[["id", "logit", "prob"]].equals(theirs[["id", "logit", "prob"]])


def test_the_run_is_marked_for_its_graph_and_not_for_its_head(run):
    scores = read_scores(run)
    assert scores["graph"]["transductive"] is True and not scores.get("transductive")
    assert not scores["held_out"]["test"]["transductive"]
    report(run.path, explain=False)
    text = run_summary(run, scores)
    assert "label propagation, transductive" in text and MARK not in text
    shown = run.paths.report.read_text()
    assert "label propagation, transductive" in shown and "how well this very set is labelled" in shown


def test_a_comparison_marks_the_graph_only(run):
    compared = compare_runs([str(run.path), f"{run.path}:graph"])
    assert [each["transductive"] for each in compared["runs"]] == [False, True]
    assert [each["in_pool"] for each in compared["runs"]] == [{"test": 0.0}, {"test": 1.0}]
    text = " ".join(compare_text(compared).split())
    assert f"{run.path.name}:graph, transductive" in text and f"{run.path.name}:graph: {MARK}" in text
    assert f"{run.path.name}, transductive" not in text and "test, transductive" in page(compared)


def test_a_blend_with_it_is_marked_everywhere(blend):
    scores = read_scores(blend)
    assert scores["transductive"] is True and scores["held_out"]["test"]["transductive"] is True
    report(blend.path, explain=False)
    texts = [run_summary(blend, scores), blend.paths.report.read_text(), (blend.path / "model-card.md").read_text()]
    for text in texts:
        words = " ".join(text.split()).lower()
        assert "out of fold, transductive" in words and "transductive: test" in words and MARK in words


def test_new_patches_ask_their_nearest_nodes(blend, run, slides, data, tmp_path, capsys):
    """A patch that is a node finds itself, so it gets its own score."""
    predict_source(blend.path, data, tmp_path / "same.parquet", split="test", device="cpu")
    assert "scores by the graph of" in " ".join(capsys.readouterr().err.split())
    ours, theirs = (
        read_predictions(path).set_index(["id", "fold"]).prob for path in (tmp_path / "same.parquet", blend.path / "test.parquet")
    )
    np.testing.assert_allclose(ours, theirs.loc[ours.index], atol=0.03)
    predict_source(blend.path, slides, tmp_path / "new.parquet", split="test", device="cpu")
    assert "transductive" not in capsys.readouterr().err


def test_an_inductive_graph_is_not_marked_and_keeps_its_digest(tiny_recipe):
    settings = (*HEADS, *GRAPH)
    off, on = (tiny_recipe(*settings, f"graph.transductive={value}") for value in ("false", "true"))
    assert recipe_digest(off) == recipe_digest(tiny_recipe(*settings)) != recipe_digest(on)


def test_a_pool_of_the_test_split_alone_gives_an_inductive_graph_no_nodes(train, slides, tmp_path, capsys):
    settings = [each for each in (*HEADS, *GRAPH) if not each.startswith("data.label_budget")]
    train(tmp_path / "run", *settings, only=[0])
    said = " ".join(capsys.readouterr().err.split())
    assert "fold-0: its pool of 16 patches is the test split, which is scored and so not in the graph" in said
    train(tmp_path / "other", *settings, "graph.transductive=true", only=[0])
    assert "which is scored and so not in the graph" not in capsys.readouterr().err
