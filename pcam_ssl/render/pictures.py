"""Patches as pictures inside a document."""

import io

import numpy as np
from PIL import Image

from pcam_ssl.render.document import Picture

QUALITY = 90
"""JPEG: a patch of 96 px takes about 5 kB, a fifth of the PNG, and looks the same at this quality."""


def picture(
    pixels: np.ndarray,
    alt: str,
    kind: str = "jpeg",
    side_px: int | None = None,
    most_px: int | None = None,
    centre_px: int | None = None,
    title: str = "",
    colour: str = "",
) -> Picture:
    """Pixels uint8 `[H, H, 3]` as a picture.

    Shown `side_px` wide (the size of the patch without it). `most_px` makes larger patches smaller. `centre_px` outlines the centre
    where the patch is larger.
    """
    size_px = len(pixels)
    edge = 100 * ((size_px - centre_px) // 2) / size_px if centre_px is not None and size_px > centre_px else None
    if most_px is not None and size_px > most_px:
        pixels = np.asarray(Image.fromarray(pixels).resize((most_px, most_px), Image.Resampling.LANCZOS))
    side_px = side_px or len(pixels)
    return Picture(encoded(pixels, kind), kind, alt, side_px, side_px, edge, title, colour)


def encoded(pixels: np.ndarray, kind: str = "jpeg") -> bytes:
    """Pixels uint8 `[H, W, 3]` as the bytes of an image file, jpeg or png."""
    buffer = io.BytesIO()
    choices = {"quality": QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, kind.upper(), **choices)
    return buffer.getvalue()


def shorten(name: str, length: int = 18) -> str:
    """A long name without its middle."""
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"
