"""The centre third, by hand."""

import numpy as np
import pytest

from pcam_ssl.explain.centre import centre_bounds, centre_share, even_share, without_centre, without_surround


@pytest.mark.parametrize(("size_px", "bounds"), [(96, (32, 64)), (32, (10, 21)), (224, (74, 149)), (48, (16, 32))])
def test_the_centre_is_the_middle_third(size_px, bounds):
    assert centre_bounds(size_px) == bounds


def test_an_even_map_has_the_share_of_the_centres_area():
    shares = [centre_share(np.ones((1, cells, cells)), 96)[0] for cells in (1, 2, 3, 5, 96)]
    assert shares == pytest.approx([1 / 9] * 5) and even_share(96) == pytest.approx(1 / 9)


def test_three_cells_hold_the_centre_in_the_middle_one():
    cells = np.ones((1, 3, 3))
    cells[0, 1, 1] = 8
    assert centre_share(cells, 96) == pytest.approx([0.5])


def test_a_cell_counts_with_the_part_that_the_centre_covers():
    # Four cells of 24 px: the centre, 32 to 64, covers 16 px of the second and of the third, along each edge.
    cells = np.zeros((1, 4, 4))
    cells[0, 1, 2], cells[0, 0, 0] = 1, 1
    assert centre_share(cells, 96) == pytest.approx([0.5 * (16 / 24) ** 2])


def test_rows_and_columns_are_not_mixed_up():
    cells = np.zeros((2, 1, 3))
    cells[0, 0, 1] = cells[1, 0, 0] = 1
    assert centre_share(cells, 96) == pytest.approx([1 / 3, 0])


def test_a_map_of_zeros_has_no_share():
    assert np.isnan(centre_share(np.zeros((1, 3, 3)), 96)).all()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)


def test_without_the_centre_the_surround_stays_to_the_bit(noise):
    changed = without_centre(noise) != noise
    assert changed[:, 32:64, 32:64].mean() > 0.9
    changed[:, 32:64, 32:64] = False
    assert not changed.any()


def test_without_the_surround_the_centre_stays_to_the_bit(noise):
    blurred = without_surround(noise)
    assert np.array_equal(blurred[:, 32:64, 32:64], noise[:, 32:64, 32:64])
    assert (blurred != noise)[:, :32].mean() > 0.9


def test_what_is_blurred_has_lost_its_detail_and_kept_its_colour(noise):
    centre = without_centre(noise)[:, 32:64, 32:64].astype(float)
    assert centre.std() < 10 and abs(centre.mean() - noise.mean()) < 5


def test_blurring_leaves_what_it_was_given(noise):
    before = noise.copy()
    without_centre(noise), without_surround(noise)
    assert np.array_equal(noise, before)
