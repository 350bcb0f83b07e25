"""A document as one self-contained page, light and dark, for phone and wide screen; and as a part of a notebook."""

import base64
import functools
from pathlib import Path

from pcam_ssl.render.document import Cell, Document, Line, Picture, pieces

TEMPLATES = Path(__file__).with_name("templates")


def page(document: Document) -> str:
    """The whole page; the same document gives the same text. Text from data is escaped; the page has no scripts and loads no files."""
    return _environment().get_template("page.html").render(document=document)


def fragment(blocks) -> str:
    """Blocks without a page around them, for a notebook."""
    return _environment().get_template("blocks.html").module.show_all(blocks)


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
