"""`spatial.use`: scores smoothed over the patches around, by a weight chosen on inner slides, apart from the run's own."""

import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.blending.predict import predict_source
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.spatial_scores import WEIGHTS, around_logits, cells
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import read_folds
from pcam_ssl.errors import UserError
from pcam_ssl.report.summary import run_summary
from pcam_ssl.tables import read_predictions, read_table

pytestmark = pytest.mark.trains

HEADS = ("model.freeze_backbone=true", "optim.name=lbfgs", "cv.inner_folds=2", "features.layers=stages")
SPATIAL = ("spatial.use=true",)


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache):
    """Features of this file alone."""


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
    """A finished run of linear heads with smoothing in space. Do not write into it."""
    return train(tmp_path_factory.mktemp("runs") / "spatial", *HEADS, *SPATIAL)


def facts(run, k: int = 0) -> dict:
    return json.loads((run.fold(k) / "fold.json").read_text())["spatial"]


def around_by_hand(own: pd.DataFrame, dataset) -> np.ndarray:
    """Mean logit of the patches of the same slide that touch a patch's own cell."""
    places = dataset.patches.set_index("id").loc[own.id, ["wsi", "x", "y"]].reset_index(drop=True)
    step, means = dataset.size_px, np.full(len(own), np.nan)
    for at in range(len(own)):
        near = (
            (places.wsi == places.wsi[at]) & ((places.x - places.x[at]).abs() <= step) & ((places.y - places.y[at]).abs() <= step)
        )
        near[at] = False
        means[at] = own.logit[near].mean() if near.any() else np.nan
    return means


@pytest.mark.parametrize("name", ["inner", "oof", "test"])
def test_each_logit_is_mixed_with_those_around_it(run, slides, name):
    for k in (0, 1):
        own, smooth = (read_predictions(run.fold(k) / f"{name}{end}.parquet") for end in ("", "-spatial"))
        pd.testing.assert_frame_equal(own[["id", "label", "wsi", "fold"]], smooth[["id", "label", "wsi", "fold"]])
        around, weight = around_by_hand(own, open_dataset(slides)), facts(run, k)["weight"]
        expected = np.where(np.isnan(around), own.logit, (1 - weight) * own.logit + weight * around)
        np.testing.assert_allclose(smooth.logit, expected)


def test_the_runs_own_scores_are_those_of_a_run_without_it(run, train, tmp_path):
    plain = train(tmp_path / "plain", *HEADS)
    pd.testing.assert_frame_equal(run.oof, plain.oof)
    assert plain.info()["recipe_digest"] != run.info()["recipe_digest"]
    assert "spatial" not in json.loads(plain.paths.scores.read_text())


def test_the_weight_is_that_of_the_lowest_loss_of_inner_slides(run, slides):
    from pcam_ssl.cross_validation.context import calibrator_of
    from pcam_ssl.cross_validation.spatial_scores import smoothed
    from pcam_ssl.evaluation.metrics import nll

    dataset = open_dataset(slides)
    context = RunContext(run.recipe, dataset, read_folds(run.paths.folds, dataset.patches), run, None, None, 0)
    inner = read_predictions(run.fold(0) / "inner.parquet")
    around, losses = around_by_hand(inner, dataset), []
    for weight in WEIGHTS:
        table = smoothed(inner, around, weight)
        losses.append(nll(inner.label.to_numpy(int), calibrator_of(context, table).prob(table.logit)))
    assert facts(run)["weight"] == WEIGHTS[int(np.argmin(losses))]
    assert facts(run)["nll"] == pytest.approx(min(losses))


def test_labels_of_scored_slides_change_nothing(run, slides, rewrite, train, tmp_path):
    scored = set(read_predictions(run.fold(0) / "oof.parquet").id)

    def hide(patches):
        patches["label"] = patches.label.where(~patches.id.isin(scored), 1 - patches.label)
        return patches

    blind = train(
        tmp_path / "blind",
        *HEADS,
        *SPATIAL,
        f"cv.folds_file={run.paths.folds}",
        data=rewrite(slides, tmp_path / "data", hide),
        only=[0],
    )
    before, after = (read_predictions(each.fold(0) / "oof-spatial.parquet") for each in (run, blind))
    assert before.logit.tolist() == after.logit.tolist() and before.prob.tolist() == after.prob.tolist()


def test_scores_compare_and_words(run, command):
    scores = json.loads(run.paths.scores.read_text())
    assert scores["spatial"]["out_of_fold"]["n"] == len(run.oof) and "auroc" in scores["spatial"]["above_head"]
    assert "smoothed in space" in run_summary(run, scores)
    done = command("compare", run.path, f"{run.path}:spatial")
    assert done.code == 0 and ":spatial" in done.out


def test_a_blend_with_it_predicts_a_new_set_as_the_run_does(run, slides, tmp_path):
    blend = blend_runs([f"{run.path}:spatial", str(run.path)], tmp_path / "blend", "logit-mean")
    predict_source(blend.path, slides, tmp_path / "new.parquet", split="test")
    new = read_table(tmp_path / "new.parquet")[0].sort_values(["fold", "id"], ignore_index=True)
    own = read_table(blend.path / "test.parquet")[0].sort_values(["fold", "id"], ignore_index=True)
    # Kept features of the run are float16, those of new patches are not.
    np.testing.assert_allclose(new.prob, own.prob, atol=5e-4)
    assert (
        np.abs(own.prob - read_table(run.path / "test.parquet")[0].sort_values(["fold", "id"], ignore_index=True).prob).max() > 0.01
    )


def test_a_fixed_weight_of_0_changes_no_logit(train, tmp_path):
    run = train(tmp_path / "zero", *HEADS, *SPATIAL, "spatial.weight=0")
    np.testing.assert_array_equal(run.table("spatial").oof.logit, run.oof.logit)


def test_a_wrong_step_or_no_place_is_refused_before_training(train, slides, rewrite, tmp_path):
    with pytest.raises(UserError, match=r"set spatial\.step_px to the distance"):
        train(tmp_path / "far", *HEADS, *SPATIAL, "spatial.step_px=0.5")
    nowhere = rewrite(slides, tmp_path / "nowhere", lambda patches: patches.assign(x=pd.NA, y=pd.NA))
    with pytest.raises(UserError, match="no slides with coordinates"):
        train(tmp_path / "no", *HEADS, *SPATIAL, data=nowhere)
    assert not (tmp_path / "far").exists() and not (tmp_path / "no").exists()


def test_a_step_doubled_looks_twice_as_far(run, slides):
    dataset = open_dataset(slides)
    table = read_predictions(run.fold(0) / "oof.parquet")
    recipe = run.recipe
    wide = recipe.model_copy(update={"spatial": recipe.spatial.model_copy(update={"step_px": 2.0 * dataset.size_px})})
    near, far = around_logits(cells(recipe, dataset), table), around_logits(cells(wide, dataset), table)
    assert np.nanmax(np.abs(near - far)) > 0
