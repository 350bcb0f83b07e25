"""Patches as pictures: what is encoded, what is outlined, and names too long to stand beneath."""

import io

import numpy as np
import pytest
from PIL import Image

from pcam_ssl.render.html import encoded, picture, shorten


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_jpeg_looks_like_the_patch():
    pixels = np.full((24, 24, 3), (200, 60, 120), np.uint8)
    assert np.abs(decoded(encoded(pixels)).astype(int) - pixels).max() <= 2


def test_a_png_is_the_patch_to_the_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(decoded(picture(pixels, "a patch", "png").data), pixels)


def test_a_large_patch_is_made_smaller_where_asked():
    pixels = np.zeros((96, 96, 3), np.uint8)
    assert decoded(picture(pixels, "a patch", most_px=48).data).shape == (48, 48, 3)


@pytest.mark.parametrize(("size_px", "edge"), [(96, 100 / 3), (64, 25.0), (32, None)])
def test_the_centre_is_outlined_where_there_is_something_around_it(size_px, edge):
    assert picture(np.zeros((size_px, size_px, 3), np.uint8), "a patch", centre_px=32).edge == (edge and pytest.approx(edge))


def test_long_names_lose_their_middle():
    assert shorten("0123456789abcdef0123456789") == "012345678…23456789"
    assert shorten("short") == "short"
