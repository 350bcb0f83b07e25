"""Guarantee 6: one artefact. A copied run folder predicts without its dataset and without any network."""

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pcam_ssl.blending.predict import predict_source
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.tables import PREDICTION_COLUMNS, read_table


@pytest.fixture(scope="module")
def travelled(finished, tmp_path_factory):
    """The finished run, copied elsewhere, without what only training needs."""
    path = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(finished.path, path)
    for name in ("folds.parquet", "oof.parquet", "test.parquet", "scores.json"):
        (path / name).unlink()
    info = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**info, "dataset": "/nowhere/at/all"}))
    return path


@pytest.fixture
def copy(travelled, tmp_path):
    return shutil.copytree(travelled, tmp_path / "copy")


def refusal(run, source, out, **options) -> str:
    with pytest.raises(UserError) as caught:
        predict_source(run, source, out, **options)
    assert not out.exists()
    return str(caught.value)


def test_the_runs_own_test_split_gets_the_same_predictions_to_the_bit(travelled, finished, slides, tmp_path):
    n, report = predict_source(travelled, slides, tmp_path / "new.parquet", split="test")
    assert (n, report) == (16, None)
    theirs, mine = read_table(tmp_path / "new.parquet")[0], read_table(finished.path / "test.parquet")[0]
    pd.testing.assert_frame_equal(theirs, mine, check_exact=True)


def test_each_fold_predicts_its_own_patches_as_out_of_fold(travelled, finished, slides, tmp_path):
    predict_source(travelled, slides, tmp_path / "new.parquet")
    new = read_table(tmp_path / "new.parquet")[0]
    oof = read_table(finished.path / "oof.parquet")[0]
    both = oof.merge(new, on=["id", "fold"], suffixes=("", "_new"))
    assert len(both) == len(oof)
    np.testing.assert_allclose(both.logit_new, both.logit, rtol=0, atol=1e-4)


def test_labels_of_the_source_come_along_and_are_scored(travelled, slides, rewrite, tmp_path):
    other = rewrite(slides, tmp_path / "other", lambda patches: patches[patches.split == "train"].assign(id=patches.id + "-new"))
    n, report = predict_source(travelled, other, tmp_path / "new.parquet")
    new, notes = read_table(tmp_path / "new.parquet")
    assert list(new) == list(PREDICTION_COLUMNS)
    assert (n, report["n"], report["n_slides"]) == (64, 64, 8)
    assert new.groupby("fold").size().to_dict() == {-1: 64, 0: 64, 1: 64}
    assert new.label.notna().all()
    assert notes["dataset_digest"] == open_dataset(other).digest


def test_patches_that_the_run_was_trained_on_are_a_warning(travelled, slides, tmp_path, capsys):
    predict_source(travelled, slides, tmp_path / "new.parquet", split="train")
    assert (
        "the run was trained on these patches, so scores on its train split are too good; use oof.parquet"
        in capsys.readouterr().err
    )


def test_a_folder_of_images_is_a_source(travelled, slides, tmp_path):
    dataset = open_dataset(slides)
    rows = np.flatnonzero(dataset.patches.split == "test")[:3]
    (tmp_path / "images").mkdir()
    for row in rows:
        Image.fromarray(dataset.pixels[row]).save(tmp_path / "images" / f"{dataset.patches.id[row]}.png")
    predict_source(travelled, tmp_path / "images", tmp_path / "a.parquet")
    predict_source(travelled, slides, tmp_path / "b.parquet", split="test")
    images, packed = (read_table(tmp_path / name)[0].set_index(["id", "fold"]).logit for name in ("a.parquet", "b.parquet"))
    np.testing.assert_allclose(images, packed.loc[images.index], rtol=0, atol=1e-4)


def test_a_pickle_in_place_of_weights_is_refused_unopened(copy, slides, tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (copy / "fold-0" / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    text = refusal(copy, slides, tmp_path / "new.parquet")
    assert text.startswith(f"{copy}/fold-0/model.safetensors: damaged (")
    assert "\n" not in text
    assert not (tmp_path / "ran").exists()


def test_a_run_with_one_finished_fold_predicts_with_it(copy, slides, tmp_path):
    shutil.rmtree(copy / "fold-1")
    predict_source(copy, slides, tmp_path / "new.parquet", split="test")
    new = read_table(tmp_path / "new.parquet")[0].set_index("id")
    pd.testing.assert_series_equal(new.logit[new.fold == 0], new.logit[new.fold == -1])


def test_a_run_without_a_finished_fold(copy, slides, tmp_path):
    for k in (0, 1):
        (copy / f"fold-{k}" / "fold.json").unlink()
    assert "no fold is finished yet; run its command again" in refusal(copy, slides, tmp_path / "new.parquet")


def test_another_suffix(travelled, slides, tmp_path):
    assert (
        refusal(travelled, slides, tmp_path / "new.csv")
        == f"--out {tmp_path}/new.csv: is written as parquet; name it {tmp_path}/new.parquet"
    )


def test_a_split_that_is_not_there(travelled, slides, tmp_path):
    text = refusal(travelled, slides, tmp_path / "new.parquet", split="holdout")
    assert text == f"{slides}: no patches in split holdout; it has test, train, valid"


def test_a_source_that_is_not_there(travelled, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(travelled, tmp_path / "nowhere", tmp_path / "new.parquet")


def test_a_run_that_is_not_there(slides, tmp_path):
    assert "no run there" in refusal(tmp_path / "nowhere", slides, tmp_path / "new.parquet")
