import gzip
import hashlib

import h5py
import numpy as np
import pytest

from pcam_ssl.data.download import MD5
from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError

STEM = "camelyonpatch_level_2_split"


@pytest.fixture
def make_pcam(tmp_path, make_pixels):
    """make_pcam(split, labels, packed=False, meta=None): PCam's files of one split; their folder."""

    def make(split, labels, packed=False, meta=None, seed=0, stem=STEM):
        folder = tmp_path / "pcam"
        folder.mkdir(exist_ok=True)
        values = {"x": make_pixels(len(labels), seed=seed), "y": np.array(labels, np.uint8).reshape(-1, 1, 1, 1)}
        for name, value in values.items():
            path = folder / f"{stem}_{split}_{name}.h5"
            with h5py.File(path, "w") as file:
                file[name] = value
            if packed:
                path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
                path.unlink()
        if meta:
            (folder / f"{stem}_{split}_meta.csv").write_text(meta)
        return folder

    return make


META = ",coord_x,coord_y,tumor_patch,center_tumor_patch,wsi\n0,10,20,True,True,camelyon16_train_normal_001\n1,30,40,True,False,s2\n"


def test_splits_labels_slides_and_coordinates_are_read(tmp_path, make_pcam, make_pixels):
    make_pcam("valid", [0], seed=1)
    dataset = import_source(make_pcam("train", [1, 0], meta=META), tmp_path / "set")
    assert dataset.patches["id"].tolist() == ["train-000000", "train-000001", "valid-000000"]
    assert dataset.patches["label"].tolist() == [1, 0, 0]
    assert dataset.patches["wsi"].fillna("?").tolist() == ["camelyon16_train_normal_001", "s2", "?"]
    assert dataset.patches[["x", "y"]].fillna(-1).values.tolist() == [[10, 20], [30, 40], [-1, -1]]
    assert np.array_equal(dataset.pixels, np.concatenate([make_pixels(2), make_pixels(1, seed=1)]))


def test_gzipped_files_give_the_same_dataset_and_no_unpacked_files_remain(tmp_path, make_pcam):
    plain = import_source(make_pcam("train", [1, 0] * 50), tmp_path / "plain")
    for path in (tmp_path / "pcam").iterdir():
        path.unlink()
    packed = import_source(make_pcam("train", [1, 0] * 50, packed=True), tmp_path / "packed", verify=False)
    assert packed.digest == plain.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "pcam", "plain"]
    assert sorted(path.name for path in packed.path.iterdir()) == ["manifest.json", "patches.parquet", "pixels.npy"]
    assert set(packed.manifest["notes"]["md5"].values()) == {"not the published file"}


def test_wrong_md5_of_an_official_name_is_refused(tmp_path, make_pcam):
    with pytest.raises(UserError, match=r"train_y.h5.gz: MD5 is .* add --no-verify if it is not meant to be that file"):
        import_source(make_pcam("train", [1, 0], packed=True), tmp_path / "set")


def test_wrong_md5_of_the_pixels_leaves_no_dataset(tmp_path, make_pcam, monkeypatch):
    folder = make_pcam("train", [1, 0], packed=True)
    labels = f"{STEM}_train_y.h5.gz"
    monkeypatch.setitem(MD5, labels, hashlib.md5((folder / labels).read_bytes()).hexdigest())
    with pytest.raises(UserError, match=r"train_x.h5.gz: MD5 is"):
        import_source(folder, tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["pcam"]


def test_right_md5_is_noted_as_verified(tmp_path, make_pcam, monkeypatch):
    folder = make_pcam("train", [1, 0], packed=True)
    for path in folder.iterdir():
        monkeypatch.setitem(MD5, path.name, hashlib.md5(path.read_bytes()).hexdigest())
    notes = import_source(folder, tmp_path / "set").manifest["notes"]
    assert notes["md5"] == {f"{STEM}_train_y.h5.gz": "verified", f"{STEM}_train_x.h5.gz": "verified"}


def test_files_of_another_name_need_no_md5(tmp_path, make_pcam):
    assert len(import_source(make_pcam("train", [1, 0], packed=True, stem="mine_split"), tmp_path / "set")) == 2


def test_a_gzip_cut_short_is_refused(tmp_path, make_pcam):
    folder = make_pcam("train", [1, 0] * 20, packed=True, stem="mine_split")
    path = folder / "mine_split_train_x.h5.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(UserError, match=r"mine_split_train_x.h5.gz: cut short or damaged gzip; download it again"):
        import_source(folder, tmp_path / "set")


def test_an_hdf5_cut_short_is_refused(tmp_path, make_pcam):
    folder = make_pcam("train", [1, 0])
    path = folder / f"{STEM}_train_x.h5"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"train_x.h5: damaged or cut short .*download it again"):
        import_source(folder, tmp_path / "set")


def test_absent_labels_are_named(make_pcam):
    folder = make_pcam("train", [1, 0])
    (folder / f"{STEM}_train_y.h5").unlink()
    with pytest.raises(UserError, match=r"train_y.h5: .*; put the labels of the train split beside its x file"):
        list_source(folder)


def test_another_number_of_labels_is_refused(tmp_path, make_pcam):
    folder = make_pcam("train", [1, 0, 1])
    with h5py.File(folder / f"{STEM}_train_y.h5", "w") as file:
        file["y"] = np.zeros((2, 1, 1, 1), np.uint8)
    with pytest.raises(UserError, match="3 patches, but 2 labels; download both again"):
        import_source(folder, tmp_path / "set")


def test_labels_other_than_0_and_1_are_refused(make_pcam):
    with pytest.raises(UserError, match=r"train_y.h5: labels are neither 0 nor 1: 2"):
        list_source(make_pcam("train", [1, 2]))


def test_float_pixels_are_refused(tmp_path, make_pcam):
    folder = make_pcam("train", [1, 0])
    with h5py.File(folder / f"{STEM}_train_x.h5", "w") as file:
        file["x"] = np.zeros((2, 16, 16, 3), np.float32)
    with pytest.raises(UserError, match=r"x is float32 \[2, 16, 16, 3\], not uint8"):
        import_source(folder, tmp_path / "set")


def test_meta_of_another_length_is_refused(make_pcam):
    with pytest.raises(UserError, match="2 rows for 3 patches"):
        list_source(make_pcam("train", [1, 0, 1], meta=META))


def test_meta_in_another_order_is_refused(make_pcam):
    with pytest.raises(UserError, match=r"2 of 2 rows .* the y file, .*; download it again"):
        list_source(make_pcam("train", [0, 1], meta=META))


def test_pixels_stored_in_chunks_come_in_order(tmp_path, make_pcam, make_pixels):
    folder = make_pcam("train", [1, 0] * 150)
    with h5py.File(folder / f"{STEM}_train_x.h5", "w") as file:
        file.create_dataset("x", data=make_pixels(300), chunks=(100, 4, 4, 1))
    assert np.array_equal(import_source(folder, tmp_path / "set").pixels, make_pixels(300))
