"""A document as one self-contained page, light and dark, for phone and wide screen; as a part of a notebook; and patches as embedded pictures."""

import base64
import functools
import hashlib
import io
from pathlib import Path

import numpy as np

from pcam_ssl.render.document import Cell, Document, Line, Picture, pieces

TEMPLATES = Path(__file__).with_name("templates")


def page(document: Document) -> str:
    """The whole page; the same document gives the same text. Text from data is escaped; the page has no scripts and loads no files."""
    return _environment().get_template("page.html").render(document=document)


def scripted_page(name: str, **values) -> str:
    """The page of `templates/NAME.html` with the script `templates/NAME.js`: its policy allows that script by digest, and no other."""
    from markupsafe import Markup

    script = (TEMPLATES / f"{name}.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment().get_template(f"{name}.html").render(script=Markup(script), script_digest=digest, **values)


def fragment(blocks) -> str:
    """Blocks without a page around them, for a notebook."""
    return str(_environment().get_template("blocks.html").module.show_all(blocks))


@functools.cache
def _environment():
    # Imported here, so that commands without a page do not load jinja2.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters |= {"kind": kind, "pieces": pieces, "address": address, "cell": as_cell, "line": as_line}
    environment.globals["style"] = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    return environment


def kind(value) -> str:
    """The name of a block's class, which chooses its markup."""
    return type(value).__name__


def address(picture: Picture) -> str:
    """A picture as a data URL."""
    return f"data:image/{picture.kind};base64,{base64.b64encode(picture.data).decode()}"


def as_cell(value) -> Cell:
    """The value as a Cell."""
    return value if isinstance(value, Cell) else Cell(value)


def as_line(value: str | Line) -> Line:
    """The value as a Line."""
    return value if isinstance(value, Line) else Line(value)


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
    from PIL import Image  # here, since pages without pictures do without it

    size_px = len(pixels)
    edge = 100 * ((size_px - centre_px) // 2) / size_px if centre_px is not None and size_px > centre_px else None
    if most_px is not None and size_px > most_px:
        pixels = np.asarray(Image.fromarray(pixels).resize((most_px, most_px), Image.Resampling.LANCZOS))
    side_px = side_px or len(pixels)
    return Picture(encoded(pixels, kind), kind, alt, side_px, side_px, edge, title, colour)


def encoded(pixels: np.ndarray, kind: str = "jpeg", quality: int = QUALITY) -> bytes:
    """Pixels uint8 `[H, W, 3]` (png also `[H, W, 4]`) as the bytes of an image file, jpeg or png."""
    from PIL import Image  # here, since pages without pictures do without it

    buffer = io.BytesIO()
    choices = {"quality": quality, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, kind.upper(), **choices)
    return buffer.getvalue()


def shorten(name: str, length: int = 18) -> str:
    """A long name without its middle."""
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"
