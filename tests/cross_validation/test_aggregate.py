"""Aggregating finished folds."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pcam_ssl.cross_validation.aggregate import aggregate_oof, aggregate_test, colour_baseline_table, read_scores, score_run
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import read_folds
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.runs.networks import mean_of_folds
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import predictions, read_table, write_table


def fold(k: int, logits, probs, stds) -> pd.DataFrame:
    return predictions(["a", "b"], [1, None], ["s", "t"], k, logits, stds, probs)


def test_the_mean_of_folds_by_hand():
    mean = mean_of_folds([fold(0, [1.0, -2.0], [0.5, 0.2], [0.1, 0.2]), fold(1, [3.0, 0.0], [0.9, 0.8], [0.3, 0.4])])
    assert mean.id.tolist() == ["a", "b"]
    assert mean.fold.tolist() == [-1, -1]
    assert mean.logit.tolist() == [2.0, -1.0]
    assert mean.view_std.tolist() == pytest.approx([0.2, 0.3])
    assert mean.prob.tolist() == pytest.approx(expit([2.0, -1.0]))


def test_the_mean_of_folds_has_a_temperature_of_its_own():
    parts = [fold(0, [1.0, -2.0], [0.5, 0.2], [0, 0]), fold(1, [3.0, 0.0], [0.9, 0.8], [0, 0])]
    assert mean_of_folds(parts, Calibrator(2.0)).prob.tolist() == pytest.approx(expit([1.0, -0.5]))


def test_probs_of_zero_and_one_stay_finite():
    mean = mean_of_folds([fold(0, [800.0, -800.0], [1.0, 0.0], [0, 0]), fold(1, [800.0, -800.0], [1.0, 0.0], [0, 0])])
    assert np.isfinite(mean.prob).all()


@pytest.fixture
def copy(finished, tmp_path):
    return Run(shutil.copytree(finished.path, tmp_path / "copy"))


@pytest.fixture
def folds(copy, slides):
    return read_folds(copy.paths.folds, open_dataset(slides).patches)


def test_a_fold_that_lacks_patches_is_refused(copy, folds):
    path = copy.fold(1) / "oof.parquet"
    write_table(path, read_table(path)[0].iloc[1:])
    with pytest.raises(UserError, match=r"the folds score 79 patches, folds.parquet names 80; delete the run and train again"):
        aggregate_oof(copy, folds)


def test_a_patch_scored_twice_is_refused(copy, folds):
    path = copy.fold(1) / "oof.parquet"
    table = read_table(path)[0]
    write_table(path, pd.concat([table, table.iloc[:1]]))
    with pytest.raises(UserError, match=r"1 ids .* in one fold"):
        aggregate_oof(copy, folds)


def test_scores_of_an_unfinished_run(copy):
    copy.paths.scores.unlink()
    with pytest.raises(UserError, match=r"not finished yet; run its command again, it goes on where it stopped"):
        read_scores(copy)


def test_held_out_scores_are_those_of_the_mean_over_folds(copy, folds, slides):
    test = aggregate_test(copy, folds)
    labels = pd.Series(np.arange(16) % 2, index=test.id[test.fold == -1])
    test = test.assign(label=pd.array(labels.loc[test.id], dtype="Int8"))
    context = RunContext(copy.recipe, open_dataset(slides), folds, copy, None, None, 0)
    scores = score_run(context, None, test, None, copy.info())
    by_fold = {k: roc_auc_score(rows.label.astype(int), rows.prob) for k, rows in test.groupby("fold")}
    assert scores["held_out"]["test"]["scores"]["auroc"]["value"] == pytest.approx(by_fold[-1])
    assert by_fold[-1] not in (by_fold[0], by_fold[1])


@pytest.fixture
def sampled(slides, rewrite, tmp_path):
    """The dataset with a sample submission, its ids backwards."""
    dataset = open_dataset(slides)
    order = dataset.patches.id[dataset.patches.split == "test"].tolist()[::-1]
    return rewrite(slides, tmp_path / "sampled", lambda patches: patches, order), order


def test_the_submission_follows_the_sample(train, sampled, tmp_path):
    dataset, order = sampled
    run = train(tmp_path / "run", "train.epochs=1", data=dataset)
    submission = pd.read_csv(run.path / "submission.csv")
    test = read_table(run.path / "test.parquet")[0]
    assert submission.id.tolist() == order
    probs = test[test.fold == -1].set_index("id").prob.loc[order]
    np.testing.assert_allclose(submission.label, probs, rtol=1e-12)


def test_a_sample_that_does_not_fit_leaves_no_submission(train, slides, rewrite, tmp_path):
    dataset = rewrite(slides, tmp_path / "odd", lambda patches: patches, ["somebody"])
    run = train(tmp_path / "run", "train.epochs=1", data=dataset)
    assert not (run.path / "submission.csv").exists()
    assert (run.path / "test.parquet").exists()


def test_without_slide_ids_stain_clusters_group_with_a_warning(train, slides, rewrite, tmp_path, capsys):
    dataset = rewrite(slides, tmp_path / "anonymous", lambda patches: patches.assign(wsi=None))
    run = train(tmp_path / "run", "train.epochs=1", "cv.inner_share=0.2", data=dataset)
    scores = read_scores(run)
    assert scores["grouping"] == "stain clusters"
    assert any("slides are not used" in note for note in scores["notes"])
    assert "WARNING: slides are not used" in capsys.readouterr().err
    assert "stain clusters" in scores["out_of_fold"]["interval"]


def test_a_patch_has_the_same_mean_of_folds_alone_as_among_others():
    rng = np.random.default_rng(0)
    columns = [(rng.normal(size=10), rng.uniform(0.01, 0.99, 10), rng.uniform(size=10)) for _ in range(15)]
    ids = [f"p{place}" for place in range(10)]

    def parts(rows):
        return [
            predictions(ids[rows], [1] * len(ids[rows]), ids[rows], k, logits[rows], stds[rows], probs[rows])
            for k, (logits, probs, stds) in enumerate(columns)
        ]

    alone = pd.concat([mean_of_folds(parts(slice(place, place + 1))) for place in range(10)], ignore_index=True)
    pd.testing.assert_frame_equal(mean_of_folds(parts(slice(None))), alone, check_exact=True)


@pytest.mark.parametrize(("part", "moves"), [("inner", False), ("hidden", False), ("train", True)])
def test_the_colour_floor_learns_from_visible_labels_of_training_slides_alone(copy, folds, slides, part, moves):
    """Half of the training labels are hidden, as `data.label_budget` does."""
    folds = replace(folds, frame=folds.frame.assign(visible=folds.frame.index % 4 < 2))
    masks = {"inner": folds.inner_mask(0), "hidden": folds.pool_mask(0) & ~folds.frame.visible, "train": folds.train_mask(0)}
    dataset = open_dataset(slides)
    before = colour_baseline_table(copy, dataset, folds, 0, {})
    patches = dataset.patches
    changed = patches.id.isin(folds.frame.id[masks[part]])
    all_tumor = replace(dataset, patches=patches.assign(label=patches.label.mask(changed, 1)))
    after = colour_baseline_table(copy, all_tumor, folds, 0, {})
    of_fold = before.fold == 0
    assert (before.prob[of_fold] != after.prob[of_fold]).any() == moves
