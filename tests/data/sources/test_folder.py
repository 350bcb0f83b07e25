import numpy as np
import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError


@pytest.fixture
def make_folder(tmp_path, make_pixels, encode):
    """make_folder("train/0/a.png", ...): a folder with these images, each another one."""

    def make(*names):
        for name, patch in zip(names, make_pixels(len(names)), strict=True):
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(patch, {"png": "PNG", "jpg": "JPEG", "tif": "TIFF"}[name[-3:]]))
        return tmp_path / "images"

    return make


def rows(found):
    return [
        tuple(row)
        for row in found.records[["id", "split", "label"]].astype(object).where(lambda frame: frame.notna(), None).to_numpy()
    ]


def test_split_and_class_come_from_folder_names(make_folder):
    found = list_source(make_folder("train/0/a.png", "train/1/b.jpg", "validation/Tumor/c.tif", "test/non-tumor/d.png"))
    assert rows(found) == [("d", "test", 0), ("a", "train", 0), ("b", "train", 1), ("c", "valid", 1)]


def test_class_folders_alone_are_train(make_folder):
    found = list_source(make_folder("benign/a.png", "malignant/b.png"))
    assert rows(found) == [("a", "train", 0), ("b", "train", 1)]


def test_images_directly_in_a_split_are_unlabelled(make_folder):
    found = list_source(make_folder("train/0/a.png", "train/1/b.png", "test/c.png"))
    assert rows(found) == [("c", "test", None), ("a", "train", 0), ("b", "train", 1)]


def test_flat_folder_is_unlabelled_test(make_folder):
    assert rows(list_source(make_folder("a.png", "b.png"))) == [("a", "test", None), ("b", "test", None)]


def test_single_image_is_unlabelled_test(make_folder, make_pixels, tmp_path):
    dataset = import_source(make_folder("a.png") / "a.png", tmp_path / "set")
    assert dataset.patches[["id", "split"]].values.tolist() == [["a", "test"]]
    assert np.array_equal(dataset.pixels, make_pixels(1))


def test_equal_file_names_become_paths(make_folder):
    found = list_source(make_folder("train/0/1.png", "train/1/1.png"))
    assert found.records["id"].tolist() == ["0/1", "1/1"]


def test_unknown_folder_names_are_refused(make_folder):
    with pytest.raises(UserError, match=r"folder cats, dogs names neither a class nor a split; name folders 0 and 1"):
        list_source(make_folder("cats/a.png", "dogs/b.png"))


def test_csv_gives_labels_slides_splits_and_places(make_folder):
    folder = make_folder("a.png", "b.png")
    (folder / "labels.csv").write_text("id,label,wsi,split,x,y\nb,1,s2,validation,10,20\na,,s1,train,,\n")
    found = list_source(folder)
    assert found.source_format == "image folder with csv"
    assert rows(found) == [("b", "valid", 1), ("a", "train", None)]
    assert found.records["wsi"].tolist() == ["s2", "s1"]
    assert found.records["x"].fillna(-1).tolist() == [10, -1]


@pytest.mark.parametrize("name", ["sub/a", "sub/a.png", "a.png", "a"])
def test_csv_may_name_an_image_with_folder_and_suffix_or_without(make_folder, name):
    folder = make_folder("sub/a.png", "sub/b.png")
    (folder / "labels.csv").write_text(f"id,label\n{name},1\nb,0\n")
    assert list_source(folder).records["place"].tolist() == ["sub/a.png", "sub/b.png"]


def test_csv_without_split_takes_it_from_the_folder(make_folder):
    folder = make_folder("train/a.png", "test/b.png")
    (folder / "labels.csv").write_text("id,label\na,1\nb,0\n")
    assert rows(list_source(folder)) == [("a", "train", 1), ("b", "test", 0)]


def test_csv_and_images_that_do_not_match_are_problems(make_folder):
    folder = make_folder("a.png", "b.png")
    (folder / "labels.csv").write_text("id,label\na,1\nz,0\n")
    found = list_source(folder)
    where = f"{folder}: labels.csv"
    assert found.problems == [f"1 ids in {where} have no image: z", f"1 images have no row in {where}: b.png"]
    assert rows(found) == [("a", "train", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,1\na,0\nb,0\n", "1 ids have conflicting values of label, first a has 1 and 0"),
        ("id,label\na,5\nb,0\n", "1 labels are neither 0 nor 1: a has '5'"),
        ("id,label,split\na,1,holdout\nb,0,train\n", "unknown split holdout; write train, valid, or test"),
        ("id,label\ny,1\nz,0\n", "none of its ids names an image"),
    ],
)
def test_an_invalid_csv_is_refused(make_folder, text, message):
    folder = make_folder("a.png", "b.png")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        list_source(folder)


def test_an_id_for_two_images_is_refused(make_folder):
    folder = make_folder("left/a.png", "right/a.png")
    (folder / "labels.csv").write_text("id,label\na,1\n")
    with pytest.raises(UserError, match=r"id a could be left/a.png or right/a.png; write the path into the column id"):
        list_source(folder)


def test_two_label_tables_are_refused(make_folder):
    folder = make_folder("a.png")
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text("id,label\na,1\n")
    with pytest.raises(UserError, match=r"2 csv files have the columns id and label \(one.csv, two.csv\)"):
        list_source(folder)
