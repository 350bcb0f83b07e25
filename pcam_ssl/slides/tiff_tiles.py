"""Tiled TIFF pages, decoded tile by tile. OpenSlide takes three times as long: it blends tiles that do not overlap."""

import logging
import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

CACHE_BYTES = 32 * 2**20
"""Decoded tiles that are kept, as many as OpenSlide keeps: regions that touch share the tiles at their edges."""
VENDORS = ("generic-tiff", "aperio")
"""OpenSlide's formats whose levels are plain pages, tile beside tile."""
COMPRESSIONS = (1, 5, 7, 8)
"""None, LZW, JPEG, deflate: every decoder makes the same pixels of them. In JPEG 2000 decoders differ in rounding."""


class TiffTiles:
    """Levels of an open TiffFile by their pages, 8-bit RGB; other px are `blank`. Threads may share it: the file is read by position."""

    def __init__(self, opened, pages: Mapping[int, object], blank: np.ndarray):
        self._opened, self._pages, self._blank = opened, pages, blank
        self.levels = frozenset(pages)
        self._gaps = {level: 0 in page.databytecounts for level, page in pages.items()}
        self._file = os.open(opened.filehandle.path, os.O_RDONLY)
        largest = max((math.prod(page.chunks) for page in pages.values()), default=CACHE_BYTES)
        self._tile = lru_cache(max(1, CACHE_BYTES // largest))(self._decode)

    def close(self) -> None:
        self._tile.cache_clear()
        os.close(self._file)
        self._opened.close()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels uint8 [height, width, 3]; `x`, `y` are px of the level."""
        page, planes = self._pages[level], 3 if self._pages[level].planarconfig == 2 else 1
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        across, down = -(-page.imagewidth // columns), -(-page.imagelength // rows)
        region = np.empty((height, width, 3), np.uint8)
        if self._gaps[level] or min(x, y) < 0 or x + width > page.imagewidth or y + height > page.imagelength:
            region[:] = self._blank
        for row in range(max(0, y // rows), min(down, -(-(y + height) // rows))):
            for column in range(max(0, x // columns), min(across, -(-(x + width) // columns))):
                for plane in range(planes):
                    tile = self._tile(level, (plane * down + row) * across + column)
                    if tile is not None:
                        target = region if planes == 1 else region[..., plane : plane + 1]
                        _paste(tile, target, column * columns - x, row * rows - y, page.imagewidth - x, page.imagelength - y)
        return region

    def covers(self, level: int, x: int, y: int, downsample: float) -> bool:
        """Whether the level is here, and (x, y), px of level 0, is the corner of one of its px."""
        return level in self.levels and x % downsample == 0 and y % downsample == 0

    def _decode(self, level: int, index: int) -> np.ndarray | None:
        """A tile uint8 [H, W, samples]; None where the file leaves it out."""
        page = self._pages[level]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        encoded = os.pread(self._file, count, offset)
        return page.decode(encoded, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0][0]


def open_tiff(path: Path):
    """The file as tifffile's TiffFile."""
    from tifffile import TiffFile

    # Of a damaged file it logs lines of its own before the error that is told in one.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    return TiffFile(path)


def tiles_beside(path: Path, slide, vendor: str, blank: np.ndarray) -> TiffTiles | None:
    """The levels of an open OpenSlide that can be read without it, None where there are none.

    Their pages are plain, and the tile of most bytes is equal to OpenSlide's.
    """
    if vendor not in VENDORS:
        return None
    opened = None
    try:
        opened = open_tiff(path)
        pages = {}
        for level, (size, down) in enumerate(zip(slide.level_dimensions, slide.level_downsamples, strict=True)):
            found = [page for page in opened.pages if page.is_tiled and (page.imagewidth, page.imagelength) == size]
            if len(found) == 1 and _is_plain(found[0]) and down == int(down):
                pages[level] = found[0]
        tiles = TiffTiles(opened, pages, blank)
        if pages and all(_is_equal(tiles, slide, level, page) for level, page in pages.items()):
            return tiles
        tiles.close()
    except Exception:  # OpenSlide reads on, and says what is wrong with a damaged file
        if opened is not None:
            opened.close()
    return None


def _is_plain(page) -> bool:
    whole = page.samplesperpixel == 3 and page.planarconfig == 1 and page.imagedepth == 1 and page.dtype == np.uint8
    # OpenSlide fills tiles that Aperio left out from another level.
    return whole and page.compression in COMPRESSIONS and 0 not in page.databytecounts


def _is_equal(tiles: TiffTiles, slide, level: int, page) -> bool:
    index = int(np.argmax(page.databytecounts))
    row, column = divmod(index, -(-page.imagewidth // page.tilewidth))
    x, y = column * page.tilewidth, row * page.tilelength
    size = min(page.tilewidth, page.imagewidth - x), min(page.tilelength, page.imagelength - y)
    down = int(slide.level_downsamples[level])
    # First without OpenSlide: after one damaged tile it reads no other.
    decoded = tiles.read(level, x, y, *size)
    seen = np.asarray(slide.read_region((x * down, y * down), level, size))
    return bool((seen[..., 3] == 255).all()) and np.array_equal(decoded, seen[..., :3])


def _paste(tile: np.ndarray, region: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    """Copy a tile to (left, top) of the region, up to the image's edge at (right, bottom)."""
    first_y, first_x = max(0, -top), max(0, -left)
    last_y, last_x = (
        min(tile.shape[0], region.shape[0] - top, bottom - top),
        min(tile.shape[1], region.shape[1] - left, right - left),
    )
    if last_y > first_y and last_x > first_x:
        region[top + first_y : top + last_y, left + first_x : left + last_x] = tile[first_y:last_y, first_x:last_x]
