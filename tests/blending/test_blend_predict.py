"""New patches by a blend of trained networks and their kNN: the test split gets the predictions that the blend wrote."""

import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.blending.predict import predict_source
from pcam_ssl.errors import UserError
from pcam_ssl.tables import read_table


@pytest.fixture(scope="module")
def blend_of_all(trained_run, tmp_path_factory):
    """A rank mean of a metric run's head, its kNN, and its own blend of both. Do not write into it."""
    specs = [str(trained_run), f"{trained_run}:knn", f"{trained_run}:blend"]
    return blend_runs(specs, tmp_path_factory.mktemp("blends") / "all", "rank-mean")


@pytest.fixture
def gone(trained_run, tmp_path):
    """A blend of one run that says it was made of `run.json` of another."""
    return blend_runs([str(trained_run)], tmp_path / "blend")


def test_predictions_of_the_test_split_are_those_the_blend_wrote(blend_of_all, unknown_slides, tmp_path):
    n, report = predict_source(blend_of_all.path, unknown_slides, tmp_path / "new.parquet", split="test", device="cpu")
    ours, theirs = read_table(tmp_path / "new.parquet")[0], read_table(blend_of_all.path / "test.parquet")[0]
    assert (n, report) == (17, None)
    pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-5)


def test_a_patch_is_scored_the_same_in_other_company(blend_of_all, unknown_slides, rewrite, tmp_path):
    few = rewrite(unknown_slides, tmp_path / "few", lambda patches: patches[patches.split == "test"].tail(3))
    predict_source(blend_of_all.path, few, tmp_path / "few.parquet", device="cpu")
    ours, theirs = (
        table.set_index(["id", "fold"]).prob
        for table in (read_table(tmp_path / "few.parquet")[0], read_table(blend_of_all.path / "test.parquet")[0])
    )
    assert ours.to_numpy() == pytest.approx(theirs.loc[ours.index].to_numpy(), abs=1e-5)


def test_patches_with_labels_are_scored_too(trained_run, slides, tmp_path):
    run = blend_runs([str(trained_run)] * 2, tmp_path / "blend")
    _, report = predict_source(run.path, slides, tmp_path / "new.parquet", split="valid", device="cpu")
    table = read_table(tmp_path / "new.parquet")[0]
    mean = table[table.fold == -1]
    assert report["scores"]["accuracy"]["value"] == np.mean((mean.prob >= 0.5) == (mean.label == 1))


def test_a_member_that_is_gone_is_named(gone, unknown_slides, tmp_path):
    info = json.loads(gone.paths.provenance.read_text())
    info["blend"]["members"][0]["run"] = "/nowhere/run"
    gone.paths.provenance.write_text(json.dumps(info))
    with pytest.raises(UserError, match="blends /nowhere/run, which is not there any more; put it back"):
        predict_source(gone.path, unknown_slides, tmp_path / "new.parquet")
    assert not (tmp_path / "new.parquet").exists()


def test_a_member_that_is_another_run_by_now_is_named(gone, unknown_slides, tmp_path):
    info = json.loads(gone.paths.provenance.read_text())
    info["blend"]["members"][0]["recipe_digest"] = "0" * 64
    gone.paths.provenance.write_text(json.dumps(info))
    with pytest.raises(UserError, match="which has changed since; blend again"):
        predict_source(gone.path, unknown_slides, tmp_path / "new.parquet")


def test_neighbours_need_the_dataset_that_votes(run_copy, unknown_slides, tmp_path):
    run = blend_runs([f"{run_copy}:knn"], tmp_path / "blend")
    info = json.loads((run_copy / "run.json").read_text())
    (run_copy / "run.json").write_text(json.dumps(info | {"dataset": str(tmp_path / "moved")}))
    with pytest.raises(UserError, match=r"patches of .*moved, which does not exist any more; put it back"):
        predict_source(run.path, unknown_slides, tmp_path / "new.parquet")


def test_rounds_are_members_as_any_run(two_rounds, tmp_path):
    run = blend_runs([str(two_rounds), str(two_rounds / "round-2")], tmp_path / "blend")
    oof = [read_table(path / "oof.parquet")[0] for path in (two_rounds, two_rounds / "round-2", run.path)]
    assert oof[2].prob.to_numpy() == pytest.approx((oof[0].prob + oof[1].prob).to_numpy() / 2)
