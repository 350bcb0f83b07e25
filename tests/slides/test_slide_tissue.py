"""Tissue is found on painted thumbnails, and pen, glass and large holes are left out."""

import cv2
import numpy as np
import pytest
from painted_slides import GLASS

from pcam_ssl.slides.tissue import mean_within, outlined, tissue_mask

PINK, PURPLE = (214, 150, 190), (150, 110, 170)
MPP = 8.0


@pytest.fixture
def glass():
    """Noisy glass, 200 x 300 px, with a disc of tissue of radius 60 px at (150, 100)."""
    pixels = np.full((200, 300, 3), GLASS, float)
    y, x = np.mgrid[:200, :300]
    pixels[np.hypot(x - 150, y - 100) < 60] = PINK
    pixels += np.random.default_rng(0).normal(0, 2, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def disc(pixels, x, y, radius, colour):
    return cv2.circle(pixels.copy(), (x, y), radius, colour, -1)


def test_tissue_is_found_and_glass_is_not(glass):
    y, x = np.mgrid[:200, :300]
    wanted = np.hypot(x - 150, y - 100) < 60
    found = tissue_mask(glass, MPP)
    assert (found & wanted).sum() / (found | wanted).sum() > 0.97


@pytest.mark.parametrize("colour", [PURPLE, (84, 50, 110), (50, 30, 66)])
def test_nuclei_are_tissue(glass, colour):
    assert tissue_mask(disc(glass, 150, 100, 20, colour), MPP)[85:115, 135:165].all()


@pytest.mark.parametrize("colour", [(20, 60, 200), (10, 40, 120), (20, 140, 60), (15, 15, 18), (50, 50, 55)], ids=str)
@pytest.mark.parametrize("x", [50, 150])
def test_pen_is_left_out_on_glass_and_on_tissue(glass, colour, x):
    found = tissue_mask(disc(glass, x, 100, 15, colour), MPP)
    y, across = np.mgrid[:200, :300]
    assert not found[np.hypot(across - x, y - 100) < 16].any()
    assert found[60, 150]


def test_small_holes_are_filled_and_large_ones_are_not(glass):
    """0.01 mm2 at 8 um/px are 156 px: a disc of radius 7."""
    small, large = tissue_mask(disc(glass, 150, 100, 5, GLASS), MPP), tissue_mask(disc(glass, 150, 100, 12, GLASS), MPP)
    assert small[100, 150] and not large[100, 150]


def test_a_bay_at_the_edge_is_no_hole(glass):
    pixels = glass.copy()
    pixels[:, :] = PINK
    pixels[:9, 100:112] = GLASS
    found = tissue_mask(pixels, MPP)
    assert not found[2, 106] and found[20, 106]


def test_glass_alone_holds_no_tissue(glass):
    assert not tissue_mask(glass[:, :80], MPP).any()


def test_tissue_alone_is_all_tissue(glass):
    noise = np.random.default_rng(1).normal(0, 12, (100, 100, 3))
    assert tissue_mask(np.clip(np.array(PINK) + noise, 0, 255).astype(np.uint8), MPP).mean() > 0.99


def test_shares_count_parts_of_pixels():
    mask = np.zeros((4, 6), bool)
    mask[:2, :3] = True
    shares = mean_within(mask, [0, 2, 0.5, 4, 2.75], [0, 0, 1.5, 2, 0], 2.0)
    assert shares == pytest.approx([1, 0.5, 0.25, 0, 0.125])


def test_the_outline_lies_on_the_edge(glass):
    mask = np.zeros((200, 300), bool)
    mask[50:100, 50:100] = True
    drawn = outlined(glass, mask)
    changed = (drawn != glass).any(axis=-1)
    assert changed[50, 50:100].all() and not changed[60:90, 60:90].any() and not changed[:48].any()
