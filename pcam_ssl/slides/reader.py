"""Whole-slide files: levels, microns per pixel, and the pixels of regions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import cv2
import numpy as np

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.slides.tiff_tiles import TiffTiles, open_tiff, tiles_beside

# OpenSlide reads more formats (DICOM, MIRAX, Ventana) than tiffslide, which wants zarr besides. Of an OME-TIFF OpenSlide sees level 0
# alone, because the others are in SubIFDs: that one format is read with tifffile.
PACKAGES = ("openslide", "tifffile", "imagecodecs", "shapely")
EXTRA = "pip install 'pcam-ssl[slides]'"
SQUARE = 0.01
"""How much mpp may differ between x and y, relative."""
UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Units of PhysicalSizeX of OME-TIFFs, in um. The micro sign and the Greek letter look alike; files hold both."""
LARGEST_BYTES = 64 * 2**20
"""A tile, or strip, of an OME-TIFF beyond this would not fit the memory that tiling promises."""
MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Level:
    """A level of a pyramid: size in its own px, and how many px of level 0 one of its px covers."""

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class Slide:
    """An open slide. `mpp` is that of level 0 in um/px, None where the file does not say it. Threads may share it."""

    path: Path
    name: str
    vendor: str
    levels: tuple[Level, ...]
    mpp: float | None
    identity: str | None
    """OpenSlide's hash of the file's smallest level and metadata; None for OME-TIFF."""
    offset: tuple[int, int]
    """Where the scanned area begins (px at level 0), for formats that say it. QuPath counts from there."""
    reads: Callable[[int, int, int, int, int], np.ndarray]
    close: Callable[[], None]

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    def read(self, level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels uint8 [height, width, 3] of a level; `x`, `y` are px at level 0. What was not scanned is white.

        Raises UserError where the file is damaged.
        """
        try:
            return self.reads(level, x, y, width, height)
        except Exception as error:  # codecs raise many kinds of error for damaged files
            place = f"x {x:,}, y {y:,} of level {level}"
            raise UserError(
                f"{self.path}: cannot be read at {place} ({first_line(error)}); it is damaged or cut short: copy it again"
            ) from None


def slide_name(path: Path) -> str:
    """The stem of the file's name, without `.ome` too; the name of a DICOM folder."""
    return path.name if path.is_dir() else path.stem.removesuffix(".ome")


def open_slide(path: Path) -> Slide:
    """Open a slide; a folder of `.dcm` files is one DICOM slide.

    Raises UserError where a package of the extra `slides` is absent, or the file is absent, no slide, or cut short.
    """
    openslide = _packages()[0]
    if not path.exists():
        raise UserError(f"{path}: no such file; name a whole slide")
    file = next(iter(sorted(path.glob("*.dcm"))), path) if path.is_dir() else path
    if file.is_dir():
        raise UserError(f"{path}: a folder without .dcm files; name the slides in it")
    try:
        vendor = openslide.OpenSlide.detect_format(file)
        if vendor in (None, "generic-tiff") and _is_ome_tiff(file):
            return _ome_slide(path)
        if vendor is None:
            raise UserError(
                f"{path}: not a slide that can be read, or cut short; name an SVS, NDPI, MRXS, DICOM, tiled TIFF or OME-TIFF file"
            )
        return _openslide_slide(path, file, openslide.OpenSlide(file), vendor)
    except UserError:
        raise
    except Exception as error:  # OpenSlide and tifffile raise many kinds of error for damaged files
        raise UserError(f"{path}: cannot be opened ({first_line(error)}); it is damaged or cut short: copy it again") from None


def _packages() -> list[ModuleType]:
    """The packages of the extra, all of them, so that a slide or annotation late in the list does not find one absent."""
    found = []
    for name in PACKAGES:
        try:
            found.append(import_module(name))
        except ImportError:  # also where openslide-python finds no openslide-bin
            raise UserError(f"data tile: {name} is not installed; {EXTRA}") from None
    return found


def _openslide_slide(path: Path, file: Path, opened, vendor: str) -> Slide:
    told = opened.properties
    downs = opened.level_downsamples
    blank = np.array([int(told.get("openslide.background-color", "FFFFFF")[at : at + 2], 16) for at in (0, 2, 4)])
    tiles = tiles_beside(file, opened, vendor, blank)

    def read(level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        if tiles is not None and tiles.covers(level, x, y, downs[level]):
            return tiles.read(level, int(x / downs[level]), int(y / downs[level]), width, height)
        pixels = np.asarray(opened.read_region((x, y), level, (width, height)))
        if (alpha := pixels[..., 3:]).min() < 255:
            part = alpha / 255
            return np.rint(pixels[..., :3] * part + blank * (1 - part)).astype(np.uint8)
        return cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)  # six times as fast as a copy by numpy

    def close() -> None:
        opened.close()
        if tiles is not None:
            tiles.close()

    return Slide(
        path,
        slide_name(path),
        vendor,
        tuple(Level(width, height, down) for (width, height), down in zip(opened.level_dimensions, downs, strict=True)),
        _mpp(path, told.get("openslide.mpp-x"), told.get("openslide.mpp-y")),
        told.get("openslide.quickhash-1"),
        (int(told.get("openslide.bounds-x", 0)), int(told.get("openslide.bounds-y", 0))),
        read,
        close,
    )


def _is_ome_tiff(path: Path) -> bool:
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


def _ome_slide(path: Path) -> Slide:
    opened = OmeTiff(path)
    levels = tuple(
        Level(width, height, (opened.sizes[0][0] / width + opened.sizes[0][1] / height) / 2) for width, height in opened.sizes
    )

    def read(level: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        down = levels[level].downsample
        return opened.read(level, round(x / down), round(y / down), width, height)

    return Slide(path, slide_name(path), "ome-tiff", levels, _mpp(path, *opened.mpp), None, (0, 0), read, opened.close)


def _mpp(path: Path, x, y) -> float | None:
    """One number for both directions. Raises UserError where pixels are not square."""
    x, y = (0.0 if value is None else float(value) for value in (x, y))
    if not x > 0 or not y > 0:
        return None
    if abs(x / y - 1) > SQUARE:
        raise UserError(f"{path}: pixels are not square ({x:g} x {y:g} um); convert it to square pixels")
    return (x + y) / 2
