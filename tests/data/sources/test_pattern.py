"""Slides, coordinates and labels from paths: the user's pattern, and layouts that are recognised."""

import zipfile

import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.data.sources import list_source
from pcam_ssl.errors import UserError

IDC = r"(?P<wsi>\d+)_idx\d+_x(?P<x>\d+)_y(?P<y>\d+)_class(?P<label>\d)"
NAMES = ("10/0/10_idx5_x101_y51_class0.png", "10/1/10_idx5_x151_y51_class1.png", "12/0/12_idx5_x101_y51_class0.png")
WILDS = (
    "patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png",
    "patient_020_node_1/patch_patient_020_node_1_x_0_y_64.png",
)
META = ",patient,node,x_coord,y_coord,tumor,slide,center,split\n0,004,4,3328,21792,1,0,0,0\n1,020,1,0,64,0,1,1,1\n"


@pytest.fixture
def make_zip(tmp_path, make_pixels, encode):
    """make_zip("a/b.png", ..., files={name: text}): a zip with these images, each another one, and text files."""

    def make(*names, files=(), size_px=16):
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, patch in zip(names, make_pixels(len(names), size_px), strict=True):
                archive.writestr(name, encode(patch, "PNG"))
            for name, text in dict(files).items():
                archive.writestr(name, text)
        return path

    return make


def rows(found) -> list[tuple]:
    table = found.records[["id", "split", "label", "wsi", "x", "y"]].astype(object)
    return [tuple(row) for row in table.where(table.notna(), None).to_numpy()]


EXPECTED = [
    ("10_idx5_x101_y51_class0", "train", 0, "10", 101, 51),
    ("10_idx5_x151_y51_class1", "train", 1, "10", 151, 51),
    ("12_idx5_x101_y51_class0", "train", 0, "12", 101, 51),
]


def test_a_pattern_gives_slide_place_and_label(make_zip):
    assert rows(list_source(make_zip(*NAMES), wsi_pattern=IDC)) == EXPECTED


def test_a_layout_that_is_known_needs_no_pattern(make_zip, capsys):
    assert rows(list_source(make_zip(*NAMES))) == EXPECTED
    assert "the layout of IDC" in capsys.readouterr().err


def test_other_names_in_class_folders_are_no_known_layout(make_zip):
    assert rows(list_source(make_zip("0/a.png", "1/b.png")))[0][3] is None


def test_classes_and_splits_may_come_from_folders(make_zip):
    found = list_source(make_zip("train/tumor/s1_a.png", "val/normal/s2_b.png"), wsi_pattern=r"(?P<wsi>s\d)_")
    assert rows(found) == [("s1_a", "train", 1, "s1", None, None), ("s2_b", "valid", 0, "s2", None, None)]


def test_without_a_class_patches_are_unlabelled(make_zip):
    assert [row[2] for row in rows(list_source(make_zip("s1/a.png", "s2/b.png"), wsi_pattern=r"(?P<wsi>s\d)/"))] == [None, None]


def test_breakhis_letters_are_classes(make_zip):
    found = list_source(make_zip("benign/SOB_B_A-14-22549AB-40-001.png", "malignant/SOB_M_DC-14-2523-40-010.png"))
    assert [(row[2], row[3]) for row in rows(found)] == [(0, "14-22549AB"), (1, "14-2523")]


def test_camelyon17_wilds_has_labels_and_splits_in_its_csv(make_zip):
    found = list_source(make_zip(*[f"patches/{name}" for name in WILDS], files={"metadata.csv": META}))
    assert [row[1:] for row in rows(found)] == [
        ("train", 1, "patient_004_node_4", 3328, 21792),
        ("valid", 0, "patient_020_node_1", 0, 64),
    ]


def test_camelyon17_wilds_with_a_patch_that_its_csv_lacks(make_zip):
    path = make_zip(*[f"patches/{name}" for name in WILDS], files={"metadata.csv": META.replace("21792", "5")})
    with pytest.raises(UserError, match=r"metadata.csv: has no row of 1 images, first patches/patient_004"):
        list_source(path)


def test_images_that_do_not_match_are_named_and_may_be_left_out(make_zip, tmp_path):
    path = make_zip(*NAMES, "notes/a.png")
    with pytest.raises(UserError, match=r"1 images do not match .*: notes/a.png"):
        import_source(path, tmp_path / "set", wsi_pattern=IDC)
    assert not (tmp_path / "set").exists()
    dataset = import_source(path, tmp_path / "set", wsi_pattern=IDC, skip_bad=True)
    assert len(dataset.patches) == 3 and dataset.patches.wsi.nunique() == 2
    assert dataset.manifest["notes"]["images_without_slide"]["count"] == 1


def test_patches_of_another_size_at_the_edge_are_named_and_may_be_left_out(make_zip, encode, make_pixels, tmp_path):
    path = make_zip(*NAMES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("12/0/12_idx5_x151_y51_class0.png", encode(make_pixels(1, 8)[0], "PNG"))
    with pytest.raises(UserError, match=r"x151_y51_class0.png: is 8 px, the others are 16 px"):
        import_source(path, tmp_path / "set")
    assert len(import_source(path, tmp_path / "set", skip_bad=True)) == 3


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"(?P<wsi>\d+", "not a regular expression (missing ), unterminated subpattern at position 0)"),
        (r"(?P<wsl>\d+)", "has a group wsl; name groups wsi, x, y, label, split. Did you mean wsi?"),
        (r"(\d+)_idx", "has no group for the slide; write (?P<wsi>...) around its name"),
        (r"(?P<wsi>case\d+)", "matches none of 3 images in"),
        (r"(?P<wsi>\d*)idx", "the slide of 10/0/10_idx5_x101_y51_class0.png is empty"),
        (
            r"(?P<wsi>\d+)_idx\d+_(?P<x>x\d+)",
            "x of 10/0/10_idx5_x101_y51_class0.png is x101; a coordinate is a whole number of px from 0",
        ),
    ],
)
def test_a_pattern_that_cannot_be_used(make_zip, pattern, problem):
    with pytest.raises(UserError) as refused:
        list_source(make_zip(*NAMES), wsi_pattern=pattern)
    assert f"--wsi-pattern {pattern}: {problem}" in str(refused.value)


def test_negative_coordinates(make_zip):
    with pytest.raises(UserError, match=r"x of s1_x-3.png is -3; a coordinate is a whole number of px from 0"):
        list_source(make_zip("s1_x-3.png"), wsi_pattern=r"(?P<wsi>s\d)_x(?P<x>-?\d+)")


def test_a_label_that_is_no_class(make_zip):
    with pytest.raises(UserError, match=r"label of s1_grade3.png is grade3; write 0 and 1"):
        list_source(make_zip("s1_grade3.png"), wsi_pattern=r"(?P<wsi>s\d)_(?P<label>grade\d)")


def test_two_labels_of_one_patch(make_zip):
    with pytest.raises(
        UserError, match=r"1 images have two labels, first 10/0/10_idx5_x1_y1_class1.png: 1 by its name, 0 by its folder"
    ):
        list_source(make_zip("10/0/10_idx5_x1_y1_class1.png", *NAMES))


def test_both_classes_at_one_place(make_zip):
    path = make_zip("10/0/10_idx5_x1_y1_class0.png", "10/1/10_idx5_x1_y1_class1.png")
    with pytest.raises(UserError, match="slide 10 has both classes at x 1, y 1"):
        list_source(path)


def test_slides_by_csv_and_by_pattern(make_zip, tmp_path):
    with pytest.raises(UserError, match="--wsi and --wsi-pattern both name the slides"):
        import_source(make_zip(*NAMES), tmp_path / "set", wsi=tmp_path / "wsi.csv", wsi_pattern=IDC)


def test_a_source_without_paths(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="--wsi-pattern: reads the paths of images in a folder or zip"):
        list_source(tmp_path / "a.parquet", wsi_pattern=IDC)


def test_the_command_says_what_it_recognised(command, make_zip, tmp_path):
    done = command("data", "import", make_zip(*NAMES), tmp_path / "set")
    assert done.code == 0, done.err
    assert "3 patches of 16 px, 2 slides" in done.out


def test_idc_from_its_zip(shared, tmp_path):
    dataset = import_source(shared / "idc.zip", tmp_path / "idc")
    assert (len(dataset), dataset.patches.wsi.nunique(), int(dataset.patches.label.sum())) == (5925, 167, 1633)
    assert dataset.patches[["x", "y"]].notna().all(axis=None)
