"""Small whole slides whose pixels tell where they are, written as tiled pyramids."""

from pathlib import Path

import numpy as np

GLASS = (243, 242, 244)


def places(width: int, height: int, scale: int = 1) -> np.ndarray:
    """Pixels uint8 [height, width, 3], pink all over: pixel (x, y) holds (x * scale, y * scale), different for each of 1024 x 512 places."""
    y, x = np.mgrid[:height, :width] * scale
    return np.stack([192 + x % 64, y % 128, 128 + x // 64 + y // 128 * 16], axis=-1).astype(np.uint8)


def on_glass(pixels: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The pixels inside the box, glass around it."""
    slide = np.empty_like(pixels)
    slide[:] = GLASS
    slide[top:bottom, left:right] = pixels[top:bottom, left:right]
    return slide


def write_slide(path: Path, levels: list[np.ndarray], mpp: float | None = 1.0, ome: bool = False, **options) -> Path:
    """A tiled pyramid, lossless unless `compression` says otherwise: plain TIFF, or OME-TIFF with its levels in SubIFDs."""
    import tifffile

    options = {"tile": (64, 64), "photometric": "rgb", "compression": "zlib"} | options
    with tifffile.TiffWriter(path, ome=ome) as file:
        for number, pixels in enumerate(levels):
            extra = {}
            if mpp is not None and not ome:
                extra = {"resolution": (1e4 / mpp * pixels.shape[1] / levels[0].shape[1],) * 2, "resolutionunit": "CENTIMETER"}
            if ome and not number:
                size = (
                    {}
                    if mpp is None
                    else {f"PhysicalSize{axis}{part}": told for axis in "XY" for part, told in (("", mpp), ("Unit", "µm"))}
                )
                extra = {"subifds": len(levels) - 1, "metadata": {"axes": "YXS", **size}}
            file.write(pixels, subfiletype=1 if number else 0, **extra, **options)
    return path
