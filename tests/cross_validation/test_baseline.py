"""What a finished run holds."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pcam_ssl.cross_validation.aggregate import read_scores
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.records import read_metrics
from pcam_ssl.tables import PREDICTION_COLUMNS, check_predictions, read_table


@pytest.fixture(scope="module")
def dataset(slides):
    return open_dataset(slides)


@pytest.fixture(scope="module")
def oof(finished):
    return read_table(finished.path / "oof.parquet")[0]


@pytest.fixture(scope="module")
def test_table(finished):
    return read_table(finished.path / "test.parquet")[0]


def test_oof_holds_each_labelled_id_once_with_its_label_and_slide(oof, dataset):
    labelled = dataset.patches[dataset.patches.label.notna()].reset_index(drop=True)
    assert oof.id.tolist() == labelled.id.tolist()
    assert oof.label.tolist() == labelled.label.tolist()
    assert oof.wsi.tolist() == labelled.wsi.tolist()


def test_no_slide_is_scored_by_two_folds(oof):
    assert (oof.groupby("wsi").fold.nunique() == 1).all()
    assert sorted(oof.fold.unique()) == [0, 1]


def test_a_folds_training_inner_and_scored_slides_are_apart(finished):
    frame = read_table(finished.paths.folds)[0]
    for k in (0, 1):
        inner, scored = set(frame.wsi[frame[f"inner_{k}"]]), set(frame.wsi[frame.fold == k])
        trained = set(frame.wsi[~frame[f"inner_{k}"] & (frame.fold != k)])
        assert inner and scored and trained
        assert not (inner & scored or inner & trained or scored & trained)


def test_test_holds_a_row_per_id_and_fold_and_the_mean(test_table, dataset):
    ids = dataset.patches.id[dataset.patches.split == "test"].tolist()
    for fold in (0, 1, -1):
        assert test_table.id[test_table.fold == fold].tolist() == ids
    assert len(test_table) == 3 * len(ids)


def test_the_mean_of_folds_averages_logits(test_table):
    logits = test_table.pivot(index="id", columns="fold", values="logit")
    np.testing.assert_allclose(logits[-1], (logits[0] + logits[1]) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["oof", "test", "fold-0/oof", "fold-1/test"])
def test_tables_are_predictions_that_know_their_run(finished, name):
    table, notes = read_table(finished.path / f"{name}.parquet")
    check_predictions(table, name)
    assert list(table) == list(PREDICTION_COLUMNS)
    info = finished.info()
    assert (
        notes | {"recipe_digest": info["recipe_digest"], "dataset_digest": info["dataset_digest"], "round": "0", "views": "8"}
        == notes
    )


def test_probs_are_calibrated_by_the_folds_own_temperature(finished, oof):
    for k in (0, 1):
        temperature = json.loads((finished.fold(k) / "fold.json").read_text())["calibration"]["temperature"]
        rows = oof[oof.fold == k]
        np.testing.assert_allclose(rows.prob, 1 / (1 + np.exp(-rows.logit / temperature)), rtol=1e-12)


def test_the_submission_is_the_calibrated_mean(finished, test_table):
    submission = pd.read_csv(finished.path / "submission.csv")
    mean = test_table[test_table.fold == -1]
    assert list(submission) == ["id", "label"]
    assert submission.id.tolist() == mean.id.tolist()
    np.testing.assert_allclose(submission.label, mean.prob, rtol=1e-12)


def test_scores_say_what_they_are_worth(finished):
    scores = read_scores(finished)
    assert (scores["scheme"], scores["grouping"]) == ("grouped", "slides")
    assert (scores["selected_on_fold"], scores["slides_shared_across_folds"]) == (False, False)
    auroc = scores["out_of_fold"]["scores"]["auroc"]
    assert auroc["low"] <= auroc["value"] <= auroc["high"]
    assert scores["held_out"] is None  # the test split has no labels


def test_one_plain_view_is_scored_beside_the_mean_of_views(finished, oof):
    views = read_scores(finished)["views"]
    plain = pd.concat([read_table(finished.fold(k) / "oof-plain.parquet")[0] for k in (0, 1)]).set_index("id").loc[oof.id]
    one, every = (roc_auc_score(oof.label.astype(int), table.prob) for table in (plain, oof))
    assert views["count"] == 8
    assert views["one_view"]["auroc"]["value"] == pytest.approx(one)
    assert views["gain"]["auroc"]["value"] == pytest.approx(every - one)
    assert (plain.view_std == 0).all()
    assert not np.allclose(plain.logit, oof.logit)


def test_a_run_of_one_view_has_no_gain_of_views(train, tmp_path):
    run = train(tmp_path / "one", "train.epochs=1")
    assert read_scores(run)["views"] is None
    assert not list(run.path.glob("fold-*/oof-plain.parquet"))


def test_metrics_hold_an_event_an_epoch(finished):
    for k in (0, 1):
        events = read_metrics(finished.fold(k) / "metrics.jsonl")
        assert [event["epoch"] for event in events] == [1, 2]
        assert {"step", "train_loss", "lr", "inner_auroc", "inner_nll", "seconds"} <= set(events[0])


def test_provenance_says_what_ran_where(finished):
    info = finished.info()
    assert (info["command"], info["status"], info["device"], info["processes"]) == ("baseline", "done", "cpu", 1)
    assert info["precision"]["name"] == "fp32"
    assert {"begun", "ended", "argv", "versions"} <= set(info)


def test_the_runs_own_recipe_repeats_it_to_the_bit(finished, slides, tmp_path, oof):
    from pcam_ssl.cross_validation.cross_validate import baseline

    again = baseline(load_recipe(finished.paths.recipe), slides, tmp_path / "again")
    pd.testing.assert_frame_equal(read_table(again.path / "oof.parquet")[0], oof, check_exact=True)


def test_a_finished_fold_leaves_no_training_state(finished):
    assert not list(finished.path.glob("fold-*/*.pt"))


def test_a_finished_run_is_left_as_it_is(train, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*.parquet")}
    train(finished.path, "predict.d4=true")
    assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*.parquet")} == before


def test_the_floor_is_scored_under_the_same_folds(train, tmp_path, oof):
    run = train(tmp_path / "floor", "score.floor=true", "train.epochs=1")
    floor = read_table(run.path / "floor.parquet")[0]
    assert floor[["id", "fold", "label"]].equals(oof[["id", "fold", "label"]])
    scores = read_scores(run)
    assert scores["floor"]["scores"]["auroc"]["value"] is not None
    assert scores["above_floor"]["auroc"]["low"] <= scores["above_floor"]["auroc"]["high"]


def test_labels_of_the_test_split_score_but_do_not_train(train, slides, rewrite, finished, tmp_path):
    def label_test(patches):
        return patches.assign(label=patches.label.mask(patches.split == "test", (patches.row % 2).astype("Int8")))

    run = train(tmp_path / "run", "predict.d4=true", data=rewrite(slides, tmp_path / "set", label_test))
    held_out = read_scores(run)["held_out"]["test"]
    assert (held_out["n"], held_out["n_slides"]) == (16, 2)
    assert (run.fold(0) / "model.safetensors").read_bytes() == (finished.fold(0) / "model.safetensors").read_bytes()


def test_the_official_scheme_scores_valid_as_its_only_fold(train, tmp_path, dataset):
    run = train(tmp_path / "run", "cv.scheme=official", "train.epochs=1")
    oof = read_table(run.path / "oof.parquet")[0]
    assert oof.id.tolist() == dataset.patches.id[dataset.patches.split == "valid"].tolist()
    assert set(oof.fold) == {0}


def test_random_folds_are_marked_wherever_scores_are_shown(train, tmp_path):
    from pcam_ssl.report.summary import run_summary

    run = train(tmp_path / "run", "cv.scheme=random", "train.epochs=1")
    scores = read_scores(run)
    assert scores["slides_shared_across_folds"] is True
    assert "WARNING: cv.scheme random: patches of one slide are in training and scoring" in run_summary(run, scores)


def test_folds_taken_from_a_random_run_stay_marked(train, tmp_path):
    random = train(tmp_path / "random", "cv.scheme=random", "train.epochs=1")
    run = train(tmp_path / "run", "cv.scheme=random", f"cv.folds_file={random.paths.folds}", "train.epochs=1")
    assert read_scores(run)["slides_shared_across_folds"] is True


def test_hidden_labels_do_not_train_and_are_scored(train, tmp_path):
    run = train(tmp_path / "run", "data.label_budget=40", "train.epochs=1")
    frame = read_table(run.paths.folds)[0]
    facts = [json.loads((run.fold(k) / "fold.json").read_text()) for k in (0, 1)]
    assert frame.visible.sum() == 40
    assert [fact["train"] + fact["inner"] for fact in facts] == [int((frame.visible & (frame.fold != k)).sum()) for k in (0, 1)]
    assert read_table(run.path / "oof.parquet")[0].label.notna().all()
