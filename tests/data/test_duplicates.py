import numpy as np
import pytest
from audit_patches import clean_patches, row, write

from pcam_ssl.data.duplicates import conflicting_duplicates, duplicate_keys, is_flat, view_free_digest


def views(patch):
    return [np.rot90(side, turns) for side in (patch, patch[:, ::-1]) for turns in range(4)]


def test_all_eight_views_have_one_digest_and_another_patch_has_another(make_pixels):
    patch, other = make_pixels(2)
    assert len({view_free_digest(view) for view in views(patch)}) == 1
    assert view_free_digest(other) != view_free_digest(patch)


@pytest.mark.parametrize("view", range(8))
def test_a_copy_in_any_view_has_the_key_of_its_original_and_nothing_else_has(tmp_path, view):
    table, pixels = clean_patches()
    pixels[row(table, "b2")] = views(pixels[row(table, "a1")])[view]
    keys = duplicate_keys(write(tmp_path / "set", table, pixels))
    assert keys[row(table, "a1")] == keys[row(table, "b2")]
    assert keys.nunique() == len(table) - 1


def test_patches_with_one_view_hash_and_other_pixels_keep_their_own_keys(tmp_path):
    table, pixels = clean_patches()
    pixels[1] = np.clip(pixels[0].astype(int) + 1, 0, 255)  # a constant more: same hash, other pixels
    dataset = write(tmp_path / "set", table, pixels)
    assert dataset.patches["view_hash"][0] == dataset.patches["view_hash"][1]
    assert duplicate_keys(dataset).nunique() == len(table)


def test_patches_of_one_colour_are_flat_whatever_the_colour(tmp_path):
    table, pixels = clean_patches()
    pixels[2], pixels[5] = 255, (200, 10, 90)
    assert list(np.flatnonzero(is_flat(write(tmp_path / "set", table, pixels).patches))) == [2, 5]


def test_conflicts_are_copies_with_different_labels(tmp_path):
    table, pixels = clean_patches()
    for copy, original in (("b1", "a0"), ("c0", "a0"), ("d3", "c2"), ("b3", "b5")):  # labels 1/0, 0/0, 1/0, 1/1
        pixels[row(table, copy)] = pixels[row(table, original)]
    table.loc["d3", "label"] = None
    dataset = write(tmp_path / "set", table, pixels)
    found = conflicting_duplicates(dataset.patches, duplicate_keys(dataset))
    assert list(found["id"]) == ["a0", "b1", "c0"]
    assert found["key"].nunique() == 1


def test_two_labels_on_one_flat_colour_conflict(tmp_path):
    table, pixels = clean_patches()
    pixels[:2] = 255
    dataset = write(tmp_path / "set", table, pixels)
    assert list(conflicting_duplicates(dataset.patches, duplicate_keys(dataset))["id"]) == ["a0", "a1"]
