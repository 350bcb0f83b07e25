"""Cells of a slide: where patches lie, overlap and gaps, colours, and numbers by hand."""

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.heatmap.cells import EMPTY, NORMAL, TUMOR, coloured, largest_lesion, lay_out, map_numbers

NAN = np.nan


def rows_of(*places) -> pd.DataFrame:
    return pd.DataFrame(places, columns=["x", "y"]).assign(wsi="s")


def test_colours_of_the_ends_and_of_no_patch():
    pixels = coloured(np.array([[0.0, 1.0, np.nan]]))
    assert [tuple(pixel) for pixel in pixels[0]] == [NORMAL, TUMOR, EMPTY]


def test_side_by_side_each_patch_is_a_cell():
    grid = lay_out(rows_of((100, 40), (132, 40), (100, 104)), 32)
    assert (grid.left, grid.top, grid.cell_px, grid.span) == (100, 40, 32, 1)
    np.testing.assert_array_equal(grid.means(np.array([0.1, 0.2, 0.3])), [[0.1, 0.2], [NAN, NAN], [0.3, NAN]])


def test_patches_that_overlap_share_cells():
    """Two patches of 64 px, 32 px apart: the middle cell is under both."""
    grid = lay_out(rows_of((0, 0), (32, 0)), 64)
    assert (grid.cell_px, grid.span) == (32, 2)
    np.testing.assert_allclose(grid.means(np.array([0.2, 0.8])), [[0.2, 0.5, 0.8]] * 2)


def test_patches_with_gaps_count_with_their_own_area():
    grid = lay_out(rows_of((0, 0), (100, 0)), 50)
    assert (grid.cell_px, grid.span) == (100, 1)
    assert grid.covered_mm2(2.0) == pytest.approx(0.01)
    assert grid.covered_mm2(None) is None


def test_a_known_step_keeps_columns_apart_that_were_rounded():
    """Patches 51.2 px apart lie at rounded places; the smallest gap, 51, would put two into one column after 256."""
    grid = lay_out(rows_of(*((round(51.2 * k), 0) for k in range(600))), 51.2, 51.2)
    assert grid.column.tolist() == list(range(600))


def test_patches_on_no_grid_are_averaged_in_cells_of_their_size():
    grid = lay_out(rows_of((0, 0), (3, 0), (96, 0)), 96)
    np.testing.assert_allclose(grid.means(np.array([0.2, 0.4, 1.0])), [[0.3, 1.0]])


def test_where_cells_would_be_too_many_they_are_as_large_as_a_patch():
    """Patches of 96 px that begin 12 px apart, on a slide of 100,000 px: 69 million cells."""
    grid = lay_out(rows_of((0, 0), (12, 12), (100_000, 100_000)), 96)
    assert (grid.cell_px, grid.span, grid.shape) == (96, 1, (1043, 1043))


@pytest.mark.parametrize("step_px", [None, 12])
def test_more_cells_than_memory_holds_are_refused(step_px):
    with pytest.raises(UserError, match=r"slide s: its map would have .* too many; check its coordinates"):
        lay_out(rows_of((0, 0), (12, 12), (10**9, 10**9)), 96, step_px)


def test_a_single_patch_is_one_cell():
    assert lay_out(rows_of((7, 7)), 96).shape == (1, 1)


def test_corners_connect_a_lesion_and_holes_separate():
    assert largest_lesion(np.array([[0.9, 0.1, 0.6], [0.1, 0.5, 0.1], [NAN, 0.1, 0.1]])) == 3
    assert largest_lesion(np.array([[0.9, NAN, 0.9, 0.9]])) == 2
    assert largest_lesion(np.array([[0.49, NAN]])) == 0


def test_numbers_by_hand():
    """Cells of 100 px at 2 um/px are 0.04 mm^2."""
    prob_map = np.array([[0.9, 0.5, 0.1], [0.2, NAN, NAN], [0.7, 0.3, 0.4]])
    probs = prob_map[~np.isnan(prob_map)]
    cell_mm2 = lay_out(rows_of((0, 0), (100, 0)), 100).covered_mm2(2.0)
    found = map_numbers(prob_map, probs, cell_mm2)
    assert (found.tiles, found.share, found.lesion_cells, found.maximum) == (7, 3 / 7, 2, 0.9)
    assert found.lesion_mm2 == pytest.approx(0.08)
    assert found.percentile_99 == pytest.approx(0.7 + 0.94 * 0.2)
    assert map_numbers(prob_map, probs, None).lesion_mm2 is None
