"""OME-TIFF pyramids, whose levels OpenSlide does not see."""

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pcam_ssl.slides.tiff_tiles import TiffTiles, open_tiff

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
    with open_tiff(path) as opened:
        return bool(opened.is_ome)


class OmeTiff:
    """The pyramid of the first image of an OME-TIFF. Threads may share it.

    `sizes` is (width, height) of each level, `mpp` PhysicalSizeX and Y in um, None where absent. Raises ValueError for images that are
    not 8-bit RGB.
    """

    def __init__(self, path: Path):
        opened = open_tiff(path)
        pages = [level.keyframe for level in opened.series[0].levels]
        for page in pages:
            if page.dtype != np.uint8 or page.samplesperpixel != 3 or page.imagedepth != 1:
                raise ValueError(f"holds {page.dtype} {page.axes} {list(page.shape)}, not 8-bit RGB")
            if math.prod(page.chunks) > LARGEST_BYTES:
                raise ValueError("is not tiled")
        self.sizes = [(page.imagewidth, page.imagelength) for page in pages]
        self.mpp = _physical_size(opened.ome_metadata)
        tiles = TiffTiles(opened, dict(enumerate(pages)), np.array([255, 255, 255]))
        self.read, self.close = tiles.read, tiles.close


def _physical_size(xml: str) -> tuple[float | None, float | None]:
    pixels = next((each for each in ElementTree.fromstring(xml).iter() if each.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return None, None
    found = [(pixels.get(f"PhysicalSize{axis}"), UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))) for axis in "XY"]
    x, y = (float(size) * unit if size and unit else None for size, unit in found)
    return x, y
