import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError


@pytest.fixture
def write(tmp_path, make_pixels, encode):
    """write(file name, labels, paths, seed): a parquet file in Hugging Face's layout; its folder."""

    def write(name, labels, paths=None, seed=0, label_type=None, **columns):
        path = tmp_path / "hf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        paths = paths or [None] * len(labels)
        images = [{"bytes": encode(p, "PNG"), "path": n} for p, n in zip(make_pixels(len(labels), seed=seed), paths, strict=True)]
        table = {
            "image": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "label": pa.array(labels, label_type),
        }
        pq.write_table(pa.table(table | columns), path)
        return tmp_path / "hf"

    return write


def test_files_of_a_split_are_read_in_their_order(tmp_path, write, make_pixels):
    write("train-00001-of-00002.parquet", [0, 1], seed=1)
    write("validation-00000-of-00001.parquet", [1], seed=2)
    dataset = import_source(write("train-00000-of-00002.parquet", [True, False, True], seed=0), tmp_path / "set")
    assert dataset.patches["id"].tolist() == [*[f"train-00000{row}" for row in range(5)], "valid-000000"]
    assert dataset.patches["label"].tolist() == [1, 0, 1, 0, 1, 1]
    assert np.array_equal(dataset.pixels, np.concatenate([make_pixels(3, seed=0), make_pixels(2, seed=1), make_pixels(1, seed=2)]))


def test_ids_are_path_stems_where_all_are_different(write):
    write("train.parquet", [0, 1], ["a.jpg", "b.jpg"])
    assert list_source(write("test.parquet", [0], ["sub/c.jpg"])).records["id"].tolist() == ["c", "a", "b"]


def test_ids_are_numbered_where_stems_repeat(write):
    write("train.parquet", [0, 1], ["a.jpg", "b.jpg"])
    assert list_source(write("test.parquet", [0], ["a.jpg"])).records["id"].tolist() == [
        "test-000000",
        "train-000000",
        "train-000001",
    ]


def test_split_may_be_the_folder(write):
    assert list_source(write("default/validation/0000.parquet", [0])).records["split"].tolist() == ["valid"]


def test_missing_and_withheld_labels_are_unlabelled(write):
    found = list_source(write("test.parquet", [None, -1, 1], label_type=pa.int64()))
    assert found.records["label"].fillna(-9).tolist() == [-9, -9, 1]


def test_slides_and_coordinates_are_read(write):
    found = list_source(write("train.parquet", [0, 1], wsi=pa.array(["s", "t"]), x=pa.array([3, 4]), y=pa.array([5, 6])))
    assert found.records[["wsi", "x", "y"]].values.tolist() == [["s", 3, 5], ["t", 4, 6]]


def test_labels_other_than_0_and_1_are_refused_with_the_row(write):
    with pytest.raises(UserError, match=r"train.parquet: 1 labels are neither 0 nor 1: row 1 has '7'"):
        list_source(write("train.parquet", [0, 7]))


def test_a_row_without_bytes_is_a_bad_image(tmp_path, write):
    folder = write("train.parquet", [0])
    image = pa.array([{"bytes": None, "path": "elsewhere.png"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": image, "label": [0]}), folder / "train.parquet")
    with pytest.raises(UserError, match=r"train.parquet row 0: holds no bytes"):
        import_source(folder, tmp_path / "set")


def test_a_file_cut_short_is_refused(write):
    folder = write("train.parquet", [0, 1])
    (folder / "train.parquet").write_bytes((folder / "train.parquet").read_bytes()[:-50])
    with pytest.raises(UserError, match=r"train.parquet: damaged or cut short .*; download it again"):
        list_source(folder)


def test_another_table_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"no column image with bytes \(found text\)"):
        list_source(tmp_path / "other.parquet")


def test_real_patches_are_counted_by_split(shared):
    records = list_source(shared / "pcam-mini").records
    assert records.groupby("split")["label"].agg(["size", "sum"]).to_dict("index") == {
        "train": {"size": 10000, "sum": 5053},
        "valid": {"size": 3000, "sum": 1500},
    }


def test_a_choice_of_rows_is_read_over_chunks(tmp_path, write, make_pixels):
    source = write("train.parquet", [0, 1] * 100)
    rows = [0, 63, 64, 130]
    dataset = import_source(source, tmp_path / "set", choose=lambda records: records.loc[rows])
    assert dataset.patches["id"].tolist() == [f"train-{row:06d}" for row in rows]
    assert np.array_equal(dataset.pixels, make_pixels(200)[rows])
