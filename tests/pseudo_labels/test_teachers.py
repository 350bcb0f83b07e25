"""Several teachers: networks of other seeds join round 0's in labelling the pool, once."""

import shutil

import numpy as np
import pytest
from round_outputs import decisions, table, weights

from pcam_ssl.cross_validation import fold as training
from pcam_ssl.files import read_json
from pcam_ssl.tables import calibrated_logits

THREE = "pseudo.teachers=3"


@pytest.fixture(scope="module")
def taught(round_0, make_rounds, tmp_path_factory):
    """(run, verdict) of one round by three teachers. Do not write into it."""
    path = shutil.copytree(round_0, tmp_path_factory.mktemp("teachers") / "run")
    return path, make_rounds(path, 1, THREE)


def test_each_is_a_run_of_its_own_on_the_folds_and_labels_of_round_0(taught):
    run, _ = taught
    seen = {weights(run, 0, "fold-0")}
    for number in (1, 2):
        teacher = run / "teachers" / str(number)
        assert table(teacher / "folds.parquet").equals(table(run / "folds.parquet"))
        assert read_json(teacher / "scores.json")["out_of_fold"]["scores"]["auroc"]["value"] is not None
        seen.add((teacher / "fold-0" / "model.safetensors").read_bytes())
    assert len(seen) == 3


@pytest.mark.parametrize("fold", [0, 1])
def test_the_pool_is_labelled_by_their_mean(taught, fold):
    run, _ = taught
    rows = decisions(run, 1, fold).set_index("id")
    folders = [run, run / "teachers" / "1", run / "teachers" / "2"]
    test = [table(folder / f"fold-{fold}" / "test.parquet").set_index("id") for folder in folders]
    mean = np.mean([calibrated_logits(each.prob) for each in test], axis=0)
    np.testing.assert_allclose(calibrated_logits(rows.prob.loc[test[0].index]), mean, atol=1e-9)


def test_the_verdict_says_what_they_cost_and_how_their_mean_scores(taught, command):
    run, verdict = taught
    told = verdict["teachers"]
    assert told["n"] == 3
    assert told["cost"]["patch_passes"] == 2 * verdict["rounds"][0]["cost"]["patch_passes"]
    assert told["against_round_0"]["auroc"]["value"] is not None
    done = command("report", run, "--json")
    assert done.code == 0, done.err
    assert "taught by the mean of 3 networks of other seeds" in done.out


def test_finished_teachers_are_not_trained_again(taught, make_rounds, monkeypatch, tmp_path):
    path = shutil.copytree(taught[0], tmp_path / "run")
    trained = []
    fit = training.fit_by_gradient
    monkeypatch.setattr(training, "fit_by_gradient", lambda context, unit: trained.append(context.run.path) or fit(context, unit))
    make_rounds(path, 2, THREE)
    assert {each.name for each in trained} == {"round-2"}


def test_later_rounds_are_taught_by_their_students(taught, make_rounds, tmp_path):
    path = shutil.copytree(taught[0], tmp_path / "run")
    make_rounds(path, 2, THREE)
    student = table(path / "round-1" / "fold-0" / "test.parquet").set_index("id")
    rows = decisions(path, 2, 0).set_index("id")
    assert np.array_equal(rows.prob.loc[student.index], student.prob)


def test_another_number_of_teachers_is_another_recipe(taught, selection_words, command, tmp_path):
    path = shutil.copytree(taught[0], tmp_path / "run")
    done = command("pseudo-label", path, "--rounds", 2, *selection_words("pseudo.teachers=2"))
    assert done.code == 2
    assert "pseudo.teachers: 3 -> 2" in done.problems[0]


def test_a_blend_has_its_teachers_already(round_0, train, selection_words, command, tmp_path):
    folds = f"cv.folds_file={round_0 / 'folds.parquet'}"
    other = train(tmp_path / "other", "data.label_budget=56", "train.batch_size=8", "seed=1", "cv.seed=0", folds)
    assert command("blend", round_0, other.path, "--out", tmp_path / "mix").code == 0
    done = command("pseudo-label", tmp_path / "mix", *selection_words(THREE))
    assert done.code == 2
    assert "is a blend, whose runs are the teachers; leave the key out" in done.problems[0]
