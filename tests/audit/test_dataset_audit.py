"""Each fault is put alone into a clean dataset; the audit finds it and nothing else."""

import io

import numpy as np
import pandas as pd
import pytest
from audit_patches import clean_patches, row, write
from PIL import Image

from pcam_ssl.audit.slides import audit_dataset, import_findings, slide_findings


@pytest.fixture
def found(tmp_path):
    """found(table, pixels, folds=None, near_bits=3, notes=None): the findings that are not `ok`."""

    def found(table, pixels, folds=None, near_bits=3, notes=None):
        dataset = write(tmp_path / "set", table, pixels, notes)
        return [finding for finding in audit_dataset(dataset, near_bits, folds) if finding.level != "ok"]

    return found


def saved_again(patch, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(patch)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def facts(findings):
    return [(finding.level, finding.check, finding.count, finding.examples) for finding in findings]


def test_nothing_is_found_in_clean_patches(found):
    assert found(*clean_patches()) == []


def test_a_slide_in_two_splits_is_a_leak(found):
    table, pixels = clean_patches()
    table.loc[["b0", "b3"], "split"] = "valid"
    (finding,) = found(table, pixels)
    assert facts([finding]) == [("leak", "slides in splits", 1, ("b (train, valid)",))]
    assert finding.what == "1 of 6 slides have patches in more than one split"
    assert finding.move == "give each slide one split and import again"


def test_unknown_slides_are_counted_by_split(found):
    table, pixels = clean_patches()
    table.loc[table["split"] == "test", "wsi"] = None
    (finding,) = found(table, pixels)
    assert facts([finding]) == [("note", "slides in splits", 12, ())]
    assert "(12 in test)" in finding.what


@pytest.mark.parametrize("copy", [lambda patch: patch, lambda patch: np.rot90(patch[:, ::-1])], ids=["same", "mirrored and turned"])
def test_a_copy_in_another_split_is_a_leak(found, copy):
    table, pixels = clean_patches()
    pixels[row(table, "test-a2")] = copy(pixels[row(table, "c4")])
    (finding,) = found(table, pixels)
    assert facts([finding]) == [("leak", "exact duplicates", 1, ("c4 = test-a2",))]
    assert finding.what == "1 group of exact duplicates (2 patches) are in more than one split (test, train)"
    assert finding.rows == ((row(table, "c4"), row(table, "test-a2")),)


def test_a_copy_in_another_fold_is_a_leak_given_folds(found):
    table, pixels = clean_patches()
    pixels[row(table, "b2")] = pixels[row(table, "a2")]
    folds = pd.Series([0] * 6 + [1] * 18, dtype="Int8")
    (finding,) = found(table, pixels, folds)
    assert facts([finding]) == [("leak", "exact duplicates", 1, ("a2 = b2",))]
    assert "are in more than one fold (0, 1)" in finding.what


def test_copies_in_one_place_are_noted(found):
    table, pixels = clean_patches()
    pixels[[row(table, "a2"), row(table, "b4")]] = pixels[row(table, "a0")]
    (finding,) = found(table, pixels)
    assert facts([finding]) == [("note", "exact duplicates", 1, ("a0 = a2 = b4",))]
    assert "(3 patches) are within one split" in finding.what


def test_a_copy_with_the_other_label_is_a_problem(found):
    table, pixels = clean_patches()
    pixels[row(table, "a3")] = pixels[row(table, "a0")]
    problem, note = found(table, pixels)
    assert facts([problem]) == [("problem", "conflicting labels", 1, ("a0 (0) / a3 (1)",))]
    assert facts([note]) == [("note", "exact duplicates", 1, ("a0 = a3",))]


def test_flat_patches_are_counted_apart_and_are_no_duplicates(found):
    table, pixels = clean_patches()
    pixels[[row(table, "a0"), row(table, "test-a0")]] = 255
    pixels[row(table, "b0")] = 254
    (finding,) = found(table, pixels)
    assert facts([finding]) == [("note", "flat patches", 3, ("a0", "b0", "test-a0"))]


@pytest.mark.parametrize(
    ("original", "again", "level", "where"),
    [
        ("a0", "test-b0", "suspect", "are in two splits"),
        ("a0", "b0", "suspect", "are in two folds"),
        ("a0", "a1", "suspect", "have conflicting labels"),
        ("a0", "a2", "note", "are in one place, and of no conflicting labels"),
    ],
)
def test_a_patch_saved_again_is_a_near_duplicate(found, original, again, level, where):
    table, pixels = clean_patches()
    pixels[row(table, again)] = saved_again(pixels[row(table, original)])
    folds = pd.Series([0] * 6 + [1] * 18, dtype="Int8")
    (finding,) = found(table, pixels, folds)
    assert (finding.level, finding.check, finding.count) == (level, "near duplicates", 1)
    assert finding.what == f"1 pair of near duplicates (within 3 bits, one picture) {where}"
    assert finding.examples[0].startswith(f"{original} ~ {again} (")
    assert finding.rows == ((row(table, original), row(table, again)),)


def test_a_near_hash_of_another_picture_is_reported_as_checked(tmp_path):
    table, pixels = clean_patches()
    # A short stroke near the edge of a blank patch, once a pixel further in: the low frequencies agree, the pictures do not.
    pixels[:2] = 255
    pixels[0, 3:8, 1] = 166
    pixels[1, 3:7, 0] = 47
    findings = [f for f in audit_dataset(write(tmp_path / "set", table, pixels), 3) if f.check == "near duplicates"]
    assert [finding.level for finding in findings] == ["ok", "ok"]
    assert findings[1].what.startswith("1 pair within 3 bits of view hash but of different content")


def test_what_an_import_left_out_is_reported(tmp_path):
    notes = {
        "slides_from": "slides.csv",
        "slide_ids_without_patch": {"count": 4, "first": ["p", "q", "r", "s"]},
        "images_without_label": {"count": 1, "first": ["z"]},
        "meta_labels_differ": 2,
        "md5": {"x.h5": "verified", "y.h5": "not the published file"},
    }
    findings = import_findings(write(tmp_path / "set", *clean_patches(), notes=notes))
    assert [(finding.level, finding.what, finding.examples) for finding in findings] == [
        ("note", "1 images have no row in the label csv", ("z",)),
        ("note", "4 ids of the slide csv have no patch", ("p", "q", "r")),
        ("note", "2 rows of the PCam csv name another label than the y file, whose labels were taken", ()),
        ("note", "1 source files are not the published ones", ("y.h5",)),
    ]


def test_a_slide_of_foreign_stain_is_noted(found):
    table, pixels = clean_patches(("a", "b", "c", "d", "e", "f", "g"))
    pixels[table["wsi"] == "e"] //= 6
    (finding,) = found(table, pixels)
    assert (finding.level, finding.check, finding.count) == ("note", "outlying slides", 1)
    assert finding.examples[0].startswith("e (")


def test_every_check_says_what_it_looked_at_where_nothing_is_wrong(tmp_path):
    findings = audit_dataset(write(tmp_path / "set", *clean_patches()), 3)
    assert {finding.check for finding in findings} == {
        "slides in splits",
        "exact duplicates",
        "near duplicates",
        "import",
        "outlying slides",
    }


def test_patches_without_any_slide_are_not_called_checked():
    table, _ = clean_patches()
    (finding,) = slide_findings(table.assign(wsi=pd.Series([None] * len(table), dtype="str", index=table.index)))
    assert (finding.level, finding.count) == ("note", 36)
