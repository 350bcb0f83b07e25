import numpy as np
import pandas as pd
import pytest

from pcam_ssl.audit.look_alikes import look_alikes


def at(*degrees):
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def patches(wsi, split="train"):
    return pd.DataFrame({"id": [f"p{i}" for i in range(len(wsi))], "wsi": pd.array(wsi, dtype="str"), "split": split})


def test_pairs_of_different_slides_are_found_closest_first():
    # cos 5 deg = 0.9962, cos 8 deg = 0.9903, cos 13 deg = 0.974
    found = look_alikes(at(0, 8, -5, 90), patches(["a", "b", "c", "d"]))
    assert found[["i", "j"]].to_numpy().tolist() == [[0, 2], [0, 1]]
    assert found["cosine"].tolist() == pytest.approx(np.cos(np.deg2rad([5, 8])), abs=1e-6)


def test_one_slide_is_no_pair_unless_it_is_in_two_splits():
    assert look_alikes(at(0, 1), patches(["a", "a"])).empty
    assert len(look_alikes(at(0, 1), patches(["a", "a"], ["train", "test"]))) == 1


def test_unknown_slides_pair_across_splits_alone():
    found = look_alikes(at(0, 1, 2), patches([None, None, None], ["train", "train", "test"]))
    assert found[["i", "j"]].to_numpy().tolist() == [[1, 2], [0, 2]]
