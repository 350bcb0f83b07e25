"""Patches as pictures inside a page."""

import base64
import io

import numpy as np
from PIL import Image

from pcam_ssl.render.markup import Markup, tag

QUALITY = 90
"""JPEG: a patch of 96 px takes about 5 kB, a fifth of the PNG, and looks the same at this quality."""


def jpeg(pixels: np.ndarray) -> bytes:
    """Pixels uint8 [H, H, 3] as the bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def data_uri(pixels: np.ndarray) -> str:
    """Pixels uint8 [H, H, 3] as the address of an image that needs no file."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg(pixels)).decode()}"


def thumbnail(pixels: np.ndarray, name: str, *lines: str | Markup) -> Markup:
    """A patch over its name and further lines of text."""
    image = tag("img", src=data_uri(pixels), alt=f"patch {name}", title=name, width=96, height=96, loading="lazy")
    caption = tag("figcaption", tag("b", shorten(name), title=name), [tag("span", line) for line in lines])
    return tag("figure", image, caption)


def shorten(name: str, length: int = 18) -> str:
    """A long name without its middle."""
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"
