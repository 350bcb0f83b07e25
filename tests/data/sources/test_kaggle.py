import zipfile

import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError


def labels(found):
    return found.records.set_index("id")["label"].dropna().to_dict()


def test_train_comes_first_and_the_sample_keeps_its_order(make_kaggle):
    found = list_source(make_kaggle())
    assert found.source_format == "kaggle"
    assert found.records["id"].tolist() == list("abcdefgh")
    assert found.sample_submission == ["h", "g"]
    assert labels(found) == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0, "f": 1}


def test_unpacked_folder_gives_the_same_dataset(tmp_path, make_kaggle):
    source = make_kaggle()
    zipfile.ZipFile(source).extractall(tmp_path / "unpacked")
    assert import_source(tmp_path / "unpacked", tmp_path / "a").digest == import_source(source, tmp_path / "b").digest


def test_an_enclosing_folder_does_not_matter(make_kaggle):
    plain = list_source(make_kaggle()).records.drop(columns="place")
    inside = list_source(make_kaggle(prefix="histopathologic-cancer-detection/", name="inside.zip")).records.drop(columns="place")
    assert inside.equals(plain)


def test_an_archive_of_test_images_alone_is_unlabelled(make_kaggle):
    changes = dict.fromkeys([f"train/{i}.tif" for i in "abcdef"] + ["train_labels.csv", "sample_submission.csv"])
    found = list_source(make_kaggle(changes))
    assert found.records[["id", "split"]].values.tolist() == [["g", "test"], ["h", "test"]]
    assert found.records["label"].isna().all()


def test_empty_label_is_unlabelled(make_kaggle):
    found = list_source(make_kaggle({"train_labels.csv": "id,label\na,\nb,NaN\nc,0\nd,1\ne,0.0\nf,1.0\n"}))
    assert labels(found) == {"c": 0, "d": 1, "e": 0, "f": 1}
    assert not found.problems


def test_a_byte_order_mark_and_spaces_are_harmless(make_kaggle):
    text = "\ufeffid, label\n" + "".join(f"{i} , 1\n" for i in "abcdef")
    assert labels(list_source(make_kaggle({"train_labels.csv": text}))) == dict.fromkeys("abcdef", 1)


def test_mismatches_both_ways_are_refused_by_name(tmp_path, make_kaggle):
    source = make_kaggle({"train/b.tif": None, "train_labels.csv": "id,label\na,0\nb,1\nc,0\nd,1\ne,0\n"})
    with pytest.raises(UserError) as caught:
        import_source(source, tmp_path / "set")
    assert caught.value.problems == (
        f"1 ids in {source}: train_labels.csv have no image in train/: b",
        f"1 images in train/ have no row in {source}: train_labels.csv: f",
        "fix these, or add --skip-bad to leave them out",
    )


def test_skip_bad_leaves_mismatches_out_and_counts_them(tmp_path, make_kaggle):
    source = make_kaggle({"train/b.tif": None, "train_labels.csv": "id,label\na,0\nb,1\nc,0\nd,1\ne,0\n"})
    dataset = import_source(source, tmp_path / "set", skip_bad=True)
    assert dataset.patches["id"].tolist() == list("acdegh")
    assert dataset.manifest["notes"]["labels_without_image"] == {"count": 1, "first": ["b"]}
    assert dataset.manifest["notes"]["images_without_label"] == {"count": 1, "first": ["f"]}


def test_sample_ids_without_image_are_a_problem(make_kaggle):
    found = list_source(make_kaggle({"test/h.tif": None}))
    assert ["have no image in test/: h" in problem for problem in found.problems] == [True]
    assert found.sample_submission == ["g"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label\na,0\nb,2\nc,x\n", "2 labels are neither 0 nor 1: b has '2', c has 'x'; write 0, 1, or nothing where unknown"),
        ("id,label\na,0\na,1\n", "1 ids have conflicting values of label, first a has 0 and 1; keep one row per id"),
        ("id,label\na,0\na,0\n", "1 ids occur more than once: a; keep one row per id"),
        ("name,label\na,0\n", r"train_labels.csv: no column id \(found name, label\)"),
        ("", "train_labels.csv: cannot be read as csv"),
    ],
)
def test_invalid_labels_are_refused(make_kaggle, text, message):
    with pytest.raises(UserError, match=message):
        list_source(make_kaggle({"train_labels.csv": text}))


def test_one_id_for_two_images_is_refused(make_kaggle, encode, make_pixels):
    with pytest.raises(UserError, match=r"1 ids .* more than one image, first a \(train/a.tif, test/a.tif\)"):
        list_source(make_kaggle({"test/a.tif": encode(make_pixels(1)[0])}))


@pytest.mark.parametrize("entry", ["../outside.tif", "train/../../outside.tif", "/etc/outside.tif", "C:\\outside.tif"])
def test_an_entry_outside_the_folder_is_refused(make_kaggle, entry):
    with pytest.raises(UserError, match=" out of the folder; do not trust this archive"):
        list_source(make_kaggle({entry: b""}))


def test_a_zip_cut_short_is_refused(make_kaggle):
    source = make_kaggle()
    source.write_bytes(source.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"kaggle.zip: cut short, or not a zip file; download it again"):
        list_source(source)


def test_damage_inside_the_archive_names_the_entry(tmp_path, make_kaggle):
    source = make_kaggle()
    content = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        content[archive.getinfo("train/c.tif").header_offset + 200] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(UserError, match=r"train/c.tif: cannot be read from the archive"):
        import_source(source, tmp_path / "set")


def test_csv_files_without_images_are_refused(make_kaggle):
    changes = dict.fromkeys([f"train/{i}.tif" for i in "abcdef"] + ["test/g.tif", "test/h.tif"])
    with pytest.raises(UserError, match="has Kaggle's csv files but no images in train/ or test/; unpack it"):
        list_source(make_kaggle(changes))


def test_hidden_files_of_macos_are_ignored(make_kaggle):
    assert len(list_source(make_kaggle({"__MACOSX/train/._a.tif": b"x", "train/._a.tif": b"x"})).records) == 8
