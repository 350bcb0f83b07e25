"""OME-TIFF pyramids, whose levels OpenSlide does not see, decoded tile by tile."""

import logging
import math
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Units of PhysicalSizeX, in um. The micro sign and the Greek letter look alike; files hold both."""
LARGEST_BYTES = 64 * 2**20
"""A tile, or strip, beyond this would not fit the memory that tiling promises."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_ome_tiff(path: Path) -> bool:
    """Whether the file is a TIFF whose description is OME-XML."""
    with open(path, "rb") as file:
        if file.read(4) not in MAGIC:
            return False
    from tifffile import TiffFile

    # Of a damaged file it logs lines of its own before the error that is told in one.
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    with TiffFile(path) as opened:
        return bool(opened.is_ome)


class OmeTiff:
    """The pyramid of the first image of an OME-TIFF. Threads may share it: files are read by position.

    `sizes` is (width, height) of each level, `mpp` PhysicalSizeX and Y in um, None where absent. Raises ValueError for images that are
    not 8-bit RGB.
    """

    def __init__(self, path: Path):
        from tifffile import TiffFile

        self._opened = TiffFile(path)
        self._pages = [level.keyframe for level in self._opened.series[0].levels]
        for page in self._pages:
            if page.dtype != np.uint8 or page.samplesperpixel != 3 or page.imagedepth != 1:
                raise ValueError(f"holds {page.dtype} {page.axes} {list(page.shape)}, not 8-bit RGB")
            if math.prod(page.chunks) > LARGEST_BYTES:
                raise ValueError("is not tiled")
        self.sizes = [(page.imagewidth, page.imagelength) for page in self._pages]
        self.mpp = _physical_size(self._opened.ome_metadata)
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self._file)
        self._opened.close()

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels uint8 [height, width, 3]; `x`, `y` are px of the level. Beyond the image it is white."""
        page, planes = self._pages[level], 3 if self._pages[level].planarconfig == 2 else 1
        rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        across, down = -(-page.imagewidth // columns), -(-page.imagelength // rows)
        region = np.full((height, width, 3), 255, np.uint8)
        for row in range(max(0, y // rows), min(down, -(-(y + height) // rows))):
            for column in range(max(0, x // columns), min(across, -(-(x + width) // columns))):
                for plane in range(planes):
                    tile = self._decode(page, (plane * down + row) * across + column)
                    if tile is not None:
                        target = region if planes == 1 else region[..., plane : plane + 1]
                        _paste(tile, target, column * columns - x, row * rows - y, page.imagewidth - x, page.imagelength - y)
        return region

    def _decode(self, page, index: int) -> np.ndarray | None:
        """A tile uint8 [H, W, samples]; None where the file leaves it out."""
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        encoded = os.pread(self._file, count, offset)
        return page.decode(encoded, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)[0][0]


def _paste(tile: np.ndarray, region: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    """Copy a tile to (left, top) of the region, up to the image's edge at (right, bottom)."""
    first_y, first_x = max(0, -top), max(0, -left)
    last_y, last_x = (
        min(tile.shape[0], region.shape[0] - top, bottom - top),
        min(tile.shape[1], region.shape[1] - left, right - left),
    )
    if last_y > first_y and last_x > first_x:
        region[top + first_y : top + last_y, left + first_x : left + last_x] = tile[first_y:last_y, first_x:last_x]


def _physical_size(xml: str) -> tuple[float | None, float | None]:
    pixels = next((each for each in ElementTree.fromstring(xml).iter() if each.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None, None
    found = [(pixels.get(f"PhysicalSize{axis}"), UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))) for axis in "XY"]
    x, y = (float(size) * unit if size and unit else None for size, unit in found)
    return x, y
