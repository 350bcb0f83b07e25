"""A document as one self-contained HTML page."""

from pathlib import Path
from string import Template

from pcam_ssl.render.markup import Markup, join

TEMPLATE = Path(__file__).with_name("page.html")


def document(title: str, body: list[Markup], style: str = "") -> str:
    """A page that needs nothing else, in the house's style sheet and the further CSS rules of `style`."""
    template = TEMPLATE.read_text(encoding="utf-8").replace("</style>", f"{style}</style>", 1)
    return Template(template).substitute(title=join([title]), body=join(body))
