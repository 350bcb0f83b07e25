"""Where patches lie: the step of their grid, and the mean of the eight around each."""

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.data.places import cells_of, grid_step, means_around


def test_the_step_is_the_smallest_distance_within_a_slide():
    table = pd.DataFrame({"wsi": ["a", "a", "b", "b"], "x": [0, 150, 7, 57]})
    assert grid_step(table, "x") == 50
    assert grid_step(table.iloc[:1], "x") == 1


def by_hand(rows: pd.DataFrame, values: np.ndarray, step: float) -> list[float]:
    """The mean over patches of the same slide at most one step away along both axes, itself left out."""
    means = []
    for at in range(len(rows)):
        near = (rows.wsi == rows.wsi[at]) & (abs(rows.x - rows.x[at]) <= step) & (abs(rows.y - rows.y[at]) <= step)
        near[at] = False
        means.append(values[near].mean() if near.any() else np.nan)
    return means


@pytest.mark.parametrize("offset", [0, -3000])
def test_means_are_those_of_the_patches_beside_on_the_same_slide(offset):
    rng = np.random.default_rng(0)
    grid = [(wsi, 50 * x + offset, 50 * y) for wsi in "abc" for x in range(12) for y in range(9)]
    rows = pd.DataFrame(grid, columns=["wsi", "x", "y"]).sample(frac=0.6, random_state=1).reset_index(drop=True)
    values = rng.normal(size=len(rows))
    found = means_around(cells_of(rows, 50), values)
    np.testing.assert_allclose(found, by_hand(rows, values, 50))
    assert np.isnan(found).sum() < len(rows) / 10


def test_an_edge_does_not_touch_the_other_edge_nor_the_next_slide():
    rows = pd.DataFrame({"wsi": list("aaab"), "x": [0, 200, 200, 0], "y": [0, 0, 100, 0]})
    assert np.isnan(means_around(cells_of(rows, 50), np.arange(4.0))).all()


def test_patches_in_one_cell_count_once_and_steps_may_differ_by_slide():
    rows = pd.DataFrame({"wsi": list("aaabb"), "x": [0, 50, 52, 0, 10], "y": [0] * 5})
    steps = rows.wsi.map({"a": 50.0, "b": 10.0})
    found = means_around(cells_of(rows, steps), np.array([1.0, 2.0, 4.0, 8.0, 16.0]))
    assert found.tolist() == [3.0, 1.0, 1.0, 16.0, 8.0]


def test_scattered_patches_of_a_large_slide_take_no_memory_for_its_area():
    rows = pd.DataFrame({"wsi": ["a"] * 3, "x": [0, 200_000, 200_001], "y": [0, 200_000, 200_001]})
    assert means_around(cells_of(rows, 1), np.array([1.0, 2.0, 3.0])).tolist()[1:] == [3.0, 2.0]
