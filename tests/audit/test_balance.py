import numpy as np
import pandas as pd
import pytest
from patches_of_slides import make_patches

from pcam_ssl.audit.slides import balance, outlying_slides, robust_z


def test_balance_counts_and_averages_a_group():
    patches = make_patches([3, 2])
    patches["label"] = pd.array([1, 1, 0, None, 1], dtype="Int8")
    patches["split"] = ["train", "train", "train", "test", "test"]
    patches["stain_h"] = np.array([0.1, 0.2, 0.6, 0.4, 0.8], dtype=np.float32)
    table = balance(patches, "split")
    assert list(table.index) == ["test", "train"]
    assert table.loc["train", ["patches", "tumor_share", "stain_h"]].tolist() == pytest.approx([3, 2 / 3, 0.3])
    assert table.loc["test", ["patches", "tumor_share", "stain_h"]].tolist() == pytest.approx([2, 1, 0.6])
    assert table["slides"].tolist() == [patches["wsi"][3:].nunique(), patches["wsi"][:3].nunique()]


def test_robust_z_by_hand():
    # Median 3, distances 2 1 0 1 97, so MAD 1.
    assert robust_z(pd.Series([1.0, 2, 3, 4, 100])).tolist() == pytest.approx([-1.349, -0.6745, 0, 0.6745, 65.4265])


def test_robust_z_is_0_where_most_values_are_equal():
    assert robust_z(pd.Series([0.0, 0, 0, 9])).tolist() == [0, 0, 0, 0]


def test_a_slide_of_foreign_stain_is_named_with_the_measure_it_is_farthest_in():
    patches = make_patches([20] * 8)
    foreign = patches["wsi"] == "train-slide-03"
    patches.loc[foreign, "od_g"] += 100
    patches.loc[foreign, "od_b"] -= 20
    found = outlying_slides(patches)
    assert found[["wsi", "measure"]].to_numpy().tolist()[0] == ["train-slide-03", "od_g"]
    assert found["value"][0] == pytest.approx(patches["od_g"][foreign].mean())
    assert found["z"][0] > 3.5
    assert not found["wsi"].duplicated().any()


def test_five_slides_are_too_few_to_call_one_foreign():
    patches = make_patches([20] * 5)
    patches.loc[patches["wsi"] == "train-slide-03", "od_g"] += 100
    assert outlying_slides(patches).empty
