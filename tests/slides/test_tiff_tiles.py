"""Tiles of TIFFs decoded without OpenSlide: the same pixels to the bit, and OpenSlide's own wherever that is not certain."""

import numpy as np
import pytest
from painted_slides import places, write_slide

from pcam_ssl.slides import reader, tiff_tiles
from pcam_ssl.slides.reader import open_slide

openslide = pytest.importorskip("openslide", reason="OpenSlide is not installed (extra: slides)")
SPECKS = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
"""Noise shows every difference in upsampling and rounding; no edge is a multiple of a tile's."""


@pytest.fixture
def by_openslide(monkeypatch):
    """by_openslide(path): the slide, of which OpenSlide alone reads."""

    def opened(path):
        with monkeypatch.context() as patch:
            patch.setattr(reader, "tiles_beside", lambda *_: None)
            return open_slide(path)

    return opened


def tiles_of(path):
    file = openslide.OpenSlide(path)
    return tiff_tiles.tiles_beside(path, file, openslide.OpenSlide.detect_format(path), np.array([255, 255, 255]))


def assert_equal(slide, expected, regions: int = 60):
    """In regions of all sizes, anywhere and beyond the edges, on every level."""
    draw = np.random.default_rng(1)
    for _ in range(regions):
        level, (width, height) = int(draw.integers(len(slide.levels))), draw.integers(1, 400, 2).tolist()
        x, y = int(draw.integers(-100, slide.width + 50)), int(draw.integers(-100, slide.height + 50))
        region = slide.read(level, x, y, width, height)
        assert np.array_equal(region, expected.read(level, x, y, width, height)), (level, x, y, width, height)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": None},
        {"compression": "lzw"},
        {"compression": "zlib"},
        {"compression": "jpeg", "compressionargs": {"level": 80}},
        {"compression": "jpeg", "subsampling": (1, 1)},
        {"compression": "jpeg", "subsampling": (2, 1)},
    ],
    ids=["plain", "lzw", "deflate", "jpeg", "jpeg without subsampling", "jpeg 4:2:2"],
)
def test_every_region_is_openslides_own(tmp_path, by_openslide, options):
    path = write_slide(tmp_path / "a.tif", [SPECKS, SPECKS[::2, ::2]], **options)
    assert set(tiles_of(path).levels) == {0, 1}
    assert_equal(open_slide(path), by_openslide(path))


def test_every_region_of_a_real_slide_is_openslides_own(shared, by_openslide):
    path = shared / "wsi/CMU-1-Small-Region.svs"
    assert set(tiles_of(path).levels) == {0}
    assert_equal(open_slide(path), by_openslide(path))


def test_a_level_whose_px_do_not_lie_on_those_of_level_0_is_left_to_openslide(tmp_path, by_openslide):
    """250 of 500 px, but 149 of 300: OpenSlide blends neighbouring px there."""
    path = write_slide(tmp_path / "a.tif", [SPECKS, SPECKS[:298:2, ::2]])
    assert set(tiles_of(path).levels) == {0}
    assert_equal(open_slide(path), by_openslide(path))


def test_tiles_that_the_file_leaves_out_are_left_to_openslide(tmp_path):
    path = write_slide(tmp_path / "a.tif", [SPECKS])
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(path, mode="r+b") as file:
        counts = list(file.pages[0].databytecounts)
        file.pages[0].tags["TileByteCounts"].overwrite([0, *counts[1:]])
    assert tiles_of(path) is None
    open_slide(path).read(0, 0, 0, 500, 300)


def test_a_decoder_that_makes_other_pixels_is_not_used(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "a.tif", [SPECKS], compression="jpeg")
    assert tiles_of(path) is not None
    decode = tiff_tiles.TiffTiles._decode
    monkeypatch.setattr(tiff_tiles.TiffTiles, "_decode", lambda self, level, index: decode(self, level, index) ^ 1)
    assert tiles_of(path) is None


@pytest.mark.parametrize("vendor", ["hamamatsu", "leica", "philips-tiff", "ventana"])
def test_other_formats_are_left_to_openslide(tmp_path, vendor):
    path = write_slide(tmp_path / "a.tif", [SPECKS])
    assert tiff_tiles.tiles_beside(path, openslide.OpenSlide(path), vendor, np.array([255, 255, 255])) is None


def test_tiles_are_kept_up_to_a_size(tmp_path, monkeypatch):
    """Two regions in one tile decode it once; with room for one tile, coming back decodes it again."""
    path = write_slide(tmp_path / "a.tif", [places(256, 256)])
    decoded = []
    decode = tiff_tiles.TiffTiles._decode
    monkeypatch.setattr(
        tiff_tiles.TiffTiles, "_decode", lambda self, level, index: decoded.append(index) or decode(self, level, index)
    )
    for kept, expected in ((2**20, [0, 1]), (1, [0, 1, 0])):
        monkeypatch.setattr(tiff_tiles, "CACHE_BYTES", kept)
        tiles = tiles_of(path)
        tiles._tile.cache_clear()
        decoded.clear()
        for x in (0, 10, 64, 20):
            assert np.array_equal(tiles.read(0, x, 5, 8, 8), places(256, 256)[5:13, x : x + 8])
        assert decoded == expected
        tiles.close()
