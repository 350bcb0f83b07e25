"""Rounds on a metric run: kNN has a say in what is added, and the refit gets rounds too."""

import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import added, calibration, decisions, table, turn, weights, without_labels

from pcam_ssl.cross_validation.cross_validate import metric_train

METRIC = ("method.name=metric", "method.projection=8", "neighbours.k=inner", "train.batch_size=8", "data.label_budget=56")
ROUNDS = ("pseudo.agreement=true", "pseudo.k_best=12")
UNITS = ("fold-0", "fold-1", "refit")


@pytest.fixture(scope="module")
def metric_run(slides, tiny_recipe, tmp_path_factory):
    return metric_train(tiny_recipe(*METRIC), slides, tmp_path_factory.mktemp("metric") / "run").path


@pytest.fixture(scope="module")
def run(metric_run, make_rounds, tmp_path_factory):
    """A metric run with two rounds that ask kNN. Do not write into it."""
    path = shutil.copytree(metric_run, tmp_path_factory.mktemp("metric") / "rounds")
    make_rounds(path, 2, *ROUNDS)
    return path


def unit_decisions(run, number, name):
    return table(run / f"round-{number}" / name / "pseudo.parquet")


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("number", [1, 2])
def test_every_pool_patch_has_a_knn_prob(run, number, name):
    assert unit_decisions(run, number, name).knn_prob.between(0, 1).all()


@pytest.mark.parametrize("fold", [0, 1])
def test_it_is_that_of_the_round_before_on_the_test_split(run, fold):
    for number, before in ((1, run), (2, run / "round-1")):
        test = table(before / f"fold-{fold}" / "test-knn.parquet").set_index("id")
        assert np.array_equal(decisions(run, number, fold).set_index("id").knn_prob.loc[test.index], test.prob)


def test_patches_predicted_later_get_the_same_prob(run, metric_run, make_rounds, tmp_path):
    path = shutil.copytree(metric_run, tmp_path / "run")
    for fold in (0, 1):
        (path / f"fold-{fold}" / "test.parquet").unlink()
        (path / f"fold-{fold}" / "test-knn.parquet").unlink()
    make_rounds(path, 1, *ROUNDS, "pseudo.stop_share=0.99")
    for fold in (0, 1):
        columns = ["logit", "prob", "view_std", "knn_prob"]
        np.testing.assert_allclose(decisions(path, 1, fold)[columns], decisions(run, 1, fold)[columns], rtol=0, atol=1e-5)


def test_where_head_and_neighbours_disagree_nothing_is_added(run):
    rows = table(run / "round-1" / "pseudo.parquet")
    disagree = (rows.prob >= 0.5) != (rows.knn_prob >= 0.5)
    assert disagree.any() and (rows.decision[disagree] == "left out").all()
    assert (rows.decision == "added").any()


def test_the_refit_gets_rounds_of_its_own_network(run):
    from hashlib import sha256

    for number, before in ((1, run), (2, run / "round-1")):
        rows = unit_decisions(run, number, "refit")
        teacher = sha256((before / "refit" / "model.safetensors").read_bytes()).hexdigest()
        assert set(rows.network_digest) == {teacher}
        assert (run / f"round-{number}" / "refit" / "fold.json").exists()
        assert (rows.decision == "added").any()


def test_a_precision_check_with_fewer_labels_than_a_batch_takes_still_trains(metric_run, make_rounds, tmp_path, capsys):
    path = shutil.copytree(metric_run, tmp_path / "run")
    # Fold 0 trains on 8 normal and 13 tumor patches, its precision check on fewer than the five of a class that a batch of 10 asks for.
    told = make_rounds(path, 1, "train.batch_size=10", "train.epochs=1", "pseudo.planted_share=0.6", "pseudo.stop_share=0.99")
    assert told["planted"]["folds"] == [0] and "pseudo.stop_share" in told["stopped"]
    assert "a batch takes 5 of each class" in capsys.readouterr().err


def test_decisions_of_the_refit_stay_out_of_those_of_the_folds(run):
    assert set(table(run / "round-1" / "pseudo.parquet").fold) == {0, 1}


@pytest.mark.parametrize("name", ["oof-knn", "oof-blend", "test-knn", "test-blend"])
def test_a_round_has_the_tables_of_a_metric_run(run, name):
    assert list(table(run / "round-1" / f"{name}.parquet")) == list(table(run / f"{name}.parquet"))


@pytest.fixture(scope="module")
def own_turned(metric_run, slides, rewrite, tiny_recipe, make_rounds, tmp_path_factory):
    """The same two rounds from nothing, folds held fixed, with scrambled labels of the slides that fold 0 scores."""
    folder, folds = tmp_path_factory.mktemp("turned"), table(metric_run / "folds.parquet")
    data = rewrite(slides, folder / "slides", turn(folds.id[folds.fold == 0]))
    recipe = tiny_recipe(*METRIC, "cv.refit=false", f"cv.folds_file={metric_run / 'folds.parquet'}")
    path = metric_train(recipe, data, folder / "run").path
    make_rounds(path, 2, *ROUNDS)
    return path


@pytest.mark.parametrize("number", [0, 1, 2])
def test_labels_of_a_fold_reach_nothing_of_it_by_way_of_neighbours(own_turned, run, number):
    assert weights(own_turned, number, "fold-0") == weights(run, number, "fold-0")
    assert calibration(own_turned, number, "fold-0") == calibration(run, number, "fold-0")
    folders = [(path / f"round-{number}" if number else path) / "fold-0" for path in (own_turned, run)]
    names = {path.name for path in folders[1].glob("*.parquet")} - {"pool.parquet"}
    assert {"oof-knn.parquet", "test-blend.parquet", "inner-knn.parquet", *(["pseudo.parquet"] if number else [])} <= names
    for name in names:
        mine, theirs = (table(folder / name) for folder in folders)
        if name != "pseudo.parquet":
            mine, theirs = without_labels(mine), without_labels(theirs)
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True, obj=name)


def test_they_reach_the_other_fold(own_turned, run):
    assert not decisions(own_turned, 1, 1).equals(decisions(run, 1, 1))


def test_a_round_is_searched_like_a_metric_run(run, command):
    id = added(run, 1, 0).id.iloc[0]
    done = command("search", run / "round-1", "--id", id, "-k", 3)
    assert done.code == 0, done.err
