"""`method.classify: false`: kNN's Predictions are the run's, in every command; the head that never learned is asked for nothing."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import decisions, table
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.cross_validation.cross_validate import metric_train
from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.folds import labelled_rows, read_folds
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.records import read_metrics
from pcam_ssl.report.summary import run_summary
from pcam_ssl.runs.embedder import run_embedder
from pcam_ssl.runs.run import Run

pytestmark = pytest.mark.trains

LABELS = ("data.label_budget=56", "train.batch_size=8")
METRIC = ("method.name=metric", "method.loss=supcon", "method.projection=8", "method.classify=false", "neighbours.k=5")


@pytest.fixture(scope="module")
def run(slides, tiny_recipe, tmp_path_factory) -> Run:
    """A finished run without a classifier. Do not write into it."""
    recipe = tiny_recipe(*METRIC, *LABELS, "predict.d4=true", "train.choose=inner")
    return metric_train(recipe, slides, tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture
def copy(run, tmp_path) -> Run:
    return Run(shutil.copytree(run.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def votes(run, slides):
    """votes(fold, rows): kNN logits by scikit-learn of the patches `rows` in a fold's embedding."""
    dataset = open_dataset(slides)
    folds, labelled = read_folds(run.paths.folds, dataset.patches), labelled_rows(dataset.patches)

    def votes(fold, rows):
        embedder, pixels = run_embedder(run, fold, "cpu"), Pixels(slides / PIXELS)
        train = labelled[folds.train_mask(fold)]
        knn = KNeighborsClassifier(5, weights=lambda far: np.exp((1 - far) / 0.07), metric="cosine", algorithm="brute")
        knn.fit(embedder.embed(pixels, train.row.to_numpy()), train.label.astype(int))
        share = knn.predict_proba(embedder.embed(pixels, rows))[:, 1]
        return np.log((5 * share + 0.5) / (5 * (1 - share) + 0.5))

    return votes


@pytest.mark.parametrize("name", ["oof", "test", "inner"])
def test_the_tables_of_a_fold_are_those_of_knn(run, votes, slides, name):
    found, patches = table(run.fold(0) / f"{name}.parquet"), open_dataset(slides).patches.set_index("id")
    assert found.logit.to_numpy() == pytest.approx(votes(0, patches.row.loc[found.id].to_numpy()), abs=1e-4)
    assert (found.view_std == 0).all()


def test_there_are_no_other_predictions_beside_them(run):
    names = {path.name for path in [*run.path.glob("*.parquet"), *run.fold(0).glob("*.parquet")]}
    assert names == {"folds.parquet", "oof.parquet", "test.parquet", "inner.parquet", "retrieval.parquet"}
    assert set(read_scores(run)["neighbours"]) == {"retrieval"}


def test_the_submission_and_the_scores_are_those_of_knn(run):
    oof, test = (table(run.path / f"{name}.parquet") for name in ("oof", "test"))
    scores = read_scores(run)
    assert scores["scored_by"] == "knn"
    assert scores["out_of_fold"]["scores"]["auroc"]["value"] == pytest.approx(roc_auc_score(oof.label.astype(int), oof.prob))
    submission = pd.read_csv(run.path / "submission.csv").set_index("id").label
    assert submission.loc[test.id[test.fold == -1]].to_numpy() == pytest.approx(test.prob[test.fold == -1].to_numpy())


@pytest.mark.parametrize("unit", ["fold-0", "fold-1", "refit"])
def test_model_json_says_who_scores_and_holds_the_calibration_of_that(run, unit):
    model, fold = (json.loads((run.path / unit / name).read_text()) for name in ("model.json", "fold.json"))
    assert model["scored_by"] == "knn"
    assert model["calibration"] == fold["calibration"] == fold["neighbours"]["calibration"]


def test_the_epoch_is_chosen_by_knn_on_inner_slides(run):
    for fold in (0, 1):
        inner, kept = table(run.fold(fold) / "inner.parquet"), json.loads((run.fold(fold) / "fold.json").read_text())["epoch"]
        seen = {event["epoch"]: event["inner_auroc"] for event in read_metrics(run.fold(fold) / "metrics.jsonl")}
        assert seen[kept] == max(seen.values()) == pytest.approx(roc_auc_score(inner.label.astype(int), inner.prob))


def test_summary_page_and_card_say_so(run, command):
    assert "by kNN" in run_summary(run, read_scores(run))
    assert command("report", run.path).code == 0
    for name in ("report.html", "model-card.md"):
        assert "no classifier (method.classify=false)" in (run.path / name).read_text()
    assert "the head, paired" not in (run.path / "report.html").read_text()


def test_new_patches_are_predicted_as_the_run_does(run, slides, command, tmp_path):
    done = command("predict", run.path, slides, "--split", "test", "--out", tmp_path / "test.parquet")
    assert done.code == 0, done.err
    found, known = table(tmp_path / "test.parquet"), table(run.path / "test.parquet")
    assert found[["id", "fold"]].equals(known[["id", "fold"]])
    np.testing.assert_allclose(found[["logit", "prob"]], known[["logit", "prob"]], rtol=0, atol=1e-5)


def test_without_the_dataset_whose_patches_vote_predict_is_refused(copy, slides, command, tmp_path):
    copy.update(dataset=str(tmp_path / "gone"))
    done = command("predict", copy.path, slides, "--out", tmp_path / "new.parquet")
    (problem,) = done.problems
    assert done.code == 2 and problem.startswith(f"{copy.path}: ") and f" {tmp_path / 'gone'}, which does not exist" in problem
    assert not (tmp_path / "new.parquet").exists()


def test_pseudo_labels_are_those_of_knn_also_for_patches_predicted_later(copy, votes, slides, make_rounds):
    (copy.fold(0) / "test.parquet").unlink()
    make_rounds(copy.path, 1, "train.epochs=1")
    assert read_scores(Run(copy.path / "round-1"))["scored_by"] == "knn"
    rows = open_dataset(slides).patches.set_index("id").row
    for fold in (0, 1):
        pool = decisions(copy.path, 1, fold)
        assert len(pool) > 16  # hidden labels too, which no table of the run holds
        assert pool.logit.to_numpy() == pytest.approx(votes(fold, rows.loc[pool.id].to_numpy()), abs=1e-4)


def test_a_blend_takes_its_predictions_and_predicts_new_patches_by_them(run, train, slides, command, tmp_path):
    head = train(tmp_path / "head", *LABELS, "train.epochs=1")
    blend = blend_runs([str(head.path), str(run.path)], tmp_path / "blend", "logit-mean")
    assert command("predict", blend.path, slides, "--split", "test", "--out", tmp_path / "test.parquet").code == 0
    found, known = table(tmp_path / "test.parquet"), table(blend.path / "test.parquet")
    np.testing.assert_allclose(found[["logit", "prob"]], known[["logit", "prob"]], rtol=0, atol=1e-5)
    compared = compare_runs([str(head.path), str(run.path), str(blend.path)])
    assert [each["network"] for each in compared["runs"]] == ["test_resnet", "test_resnet, kNN", "logit-mean of 2"]
    with pytest.raises(UserError, match=f"so name {run.path} alone"):
        compare_runs([str(head.path), f"{run.path}:knn"])


@pytest.mark.parametrize("words", [["explain", "--id", "*"], ["explain", "--whole-fold", 0], ["export", "--onnx", "model.onnx"]])
def test_what_would_show_the_untrained_head_is_refused(run, slides, command, tmp_path, words):
    if words[0] == "export":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        words = [*words[:2], tmp_path / words[2]]
    first = open_dataset(slides).patches.id.iloc[0]
    done = command(words[0], run.path, *(first if word == "*" else word for word in words[1:]))
    assert done.code == 2
    (problem,) = done.problems
    assert "trained no classifier (method.classify=false)" in problem
    assert not (tmp_path / "model.onnx").exists() and not (run.path / "explain").exists()


def test_search_shows_probs_of_knn(run, slides, command):
    test = table(run.path / "test.parquet")
    done = command("search", run.path, "--id", test.id.iloc[0], "-k", 90, "--json")
    assert done.code == 0, done.err
    shown = {each["id"]: each["prob"] for each in json.loads(done.out)["queries"][0]["neighbours"]}
    known = pd.concat([test[test.fold == -1], table(run.path / "oof.parquet")]).set_index("id").prob
    for id, prob in shown.items():
        assert prob == pytest.approx(known[id])


@pytest.mark.parametrize("setting", ["neighbours.use=false", "pseudo.agreement=true", "pseudo.view_std=0.5"])
def test_a_recipe_that_needs_a_classifier_is_refused(setting):
    with pytest.raises(UserError, match=r"method\.classify=false") as refused:
        load_recipe(None, [*METRIC, setting])
    assert len(refused.value.problems) == 1


def test_rounds_that_ask_the_classifier_of_round_0_are_refused(copy, make_rounds):
    with pytest.raises(UserError, match=r"pseudo.agreement needs a classifier, and .*copy has none"):
        make_rounds(copy.path, 1, "method.classify=true", "pseudo.agreement=true")
