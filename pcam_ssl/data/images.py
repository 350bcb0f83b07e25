"""Image bytes to RGB pixels, converted only where nothing is lost. No torch."""

import io
import sys

import numpy as np
from PIL import Image

from pcam_ssl.errors import first_line

FORMATS = ("TIFF", "PNG", "JPEG", "BMP", "WEBP")
SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".webp")


class BadImage(Exception):
    """Why an image cannot become a patch, as the end of a line that names the file."""


def decode(encoded: bytes) -> np.ndarray:
    """Pixels uint8 [H, H, 3] of an encoded image.

    Grey, bilevel, palette, and opaque alpha images become RGB; 16-bit ones too where each value is a widened 8-bit value (v * 257)
    or below 256. Raises BadImage where the bytes are damaged, hold several pages, are not square, or would lose something.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"holds {image.n_frames} pages; save one image a file")
            return _square(_rgb(image, encoded))
    except BadImage:
        raise
    except Image.UnidentifiedImageError:
        raise BadImage("empty file" if not encoded else "not an image") from None
    except Exception as error:  # Pillow raises many kinds of error for damaged files
        raise BadImage(f"damaged ({first_line(error)})") from None


def edge_px(encoded: bytes) -> int | None:
    """Edge of a square image, from its header alone; None where it is not one."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return image.width if image.width == image.height else None
    except Exception:  # decode() says later what is wrong
        return None


def _rgb(image: Image.Image, encoded: bytes) -> np.ndarray:
    if ";16" in str(image.tile):  # Pillow would drop the low byte of each value in silence
        return _narrow(_sixteen_bit(image, encoded))
    if image.mode in ("1", "L", "P") and "transparency" not in image.info:
        return np.asarray(image.convert("RGB"))
    if image.mode == "RGB" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode in ("RGBA", "LA", "PA", "RGB", "L", "P", "1"):
        pixels = np.asarray(image.convert("RGBA"))
        if (pixels[..., 3] != 255).any():
            raise BadImage("has transparent pixels; flatten it onto a background first")
        return np.ascontiguousarray(pixels[..., :3])
    raise BadImage(f"has colour mode {image.mode}; save it as 8-bit RGB")


def _sixteen_bit(image: Image.Image, encoded: bytes) -> np.ndarray:
    """Values of a 16-bit image, [H, W] or [H, W, C]."""
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64)
    swapped = Image.open(io.BytesIO(encoded), formats=FORMATS)
    other = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    swapped.tile = [tile._replace(args=_swap(tile.args, other)) for tile in swapped.tile]
    high, low = np.asarray(image).astype(np.int64), np.asarray(swapped)
    return high * 256 + low


def _swap(args, other: dict[str, str]):
    rawmode = args if isinstance(args, str) else args[0]
    rawmode = rawmode[:-1] + other[rawmode[-1]]
    return rawmode if isinstance(args, str) else (rawmode, *args[1:])


def _narrow(values: np.ndarray) -> np.ndarray:
    if (values % 257 == 0).all():
        values = values // 257
    elif values.max() > 255:
        raise BadImage("has 16 bits a channel; save it as 8-bit RGB")
    if values.ndim == 2:
        values = values[..., None].repeat(3, axis=2)
    if values.shape[2] == 4:
        if (values[..., 3] != 255).any():
            raise BadImage("has transparent pixels; flatten it onto a background first")
        values = values[..., :3]
    return np.ascontiguousarray(values.astype(np.uint8))


def _square(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[0] != pixels.shape[1]:
        raise BadImage(f"is {pixels.shape[1]} x {pixels.shape[0]} px, not square")
    return pixels
