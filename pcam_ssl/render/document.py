"""The content of a page as data: sections of paragraphs, tables, charts and pictures. Renderers decide how it looks.

`look` of a block names rules of `templates/page.css`; colours are `c0` (grey) to `c8`. Blocks that are None are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup


@dataclass(frozen=True)
class Strong:
    """Text that stands out."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command, key or file name within a sentence."""

    text: str


@dataclass(frozen=True)
class Link:
    """Text that leads to an address."""

    text: str
    address: str


Inline = str | Strong | Code | Link
Text = Inline | Sequence[Inline]
"""A sentence: one piece of text, or several in a row. Numbers and paths may stand for text."""


@dataclass(frozen=True)
class Cell:
    """A value in a table, a tile, or a list of facts.

    `below` is small print under the value, as its interval. `shade` (0 to 1) darkens a cell of a table of look "heat".
    `title` is the whole of a shortened text, which a pointer shows.
    """

    text: Text
    below: str = ""
    strong: bool = False
    title: str = ""
    shade: float | None = None


@dataclass(frozen=True)
class Paragraph:
    """Looks: "" and note, absent, headline, tally, call, `call good`, `call bad`, warning, examples."""

    text: Text
    look: str = ""


@dataclass(frozen=True)
class Items:
    """A list. Looks: "", note, remarks, listed."""

    items: Sequence[Text]
    look: str = ""


@dataclass(frozen=True)
class Facts:
    """Names with their values. Look "names": long names may break."""

    pairs: Sequence[tuple[str, Any]]
    look: str = ""


@dataclass(frozen=True)
class Preformatted:
    """Lines shown as they are, as a command to copy."""

    text: str


@dataclass(frozen=True)
class Table:
    """`head` names the columns; the first cell of a row names the row.

    `align` has a letter for each column, l or r; without it the first column stands left and all others right. Look: heat.
    """

    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    align: str = ""
    look: str = ""

    @property
    def columns(self) -> str:
        """The alignment of every column."""
        return self.align or "l" + "r" * (len(self.head) - 1)


@dataclass(frozen=True)
class Tiles:
    """Large numbers side by side: (name, value, colour) each; a value is text or a Cell."""

    tiles: Sequence[tuple[str, Any, str]]


@dataclass(frozen=True)
class Chart:
    """A drawing, and its description in words and numbers. The numbers are in a table of the section too."""

    svg: Markup
    alt: str


@dataclass(frozen=True)
class Legend:
    """What the colours of the next chart mean: (kind, colour, label); a kind is line, dashed, bar, circle or square."""

    entries: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Scale:
    """The colours of a heat map, between the words for its ends."""

    low: str
    high: str


@dataclass(frozen=True)
class Picture:
    """An encoded image, made by `html.picture`.

    `edge` outlines the centre, in percent of the side from the border. `colour` underlines it. `title` is shown by a pointer.
    """

    data: bytes
    kind: str
    alt: str
    width_px: int
    height_px: int
    edge: float | None = None
    title: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a caption. `silent`: on the page only, since it repeats other words. `title` is the whole of a shortened text."""

    text: str
    look: str = ""
    title: str = ""
    silent: bool = False
    strong: bool = False


@dataclass(frozen=True)
class Card:
    """Pictures over a caption: one patch of a gallery. `near` are small pictures beneath, as of its neighbours."""

    pictures: Sequence[Picture]
    lines: Sequence[str | Line] = ()
    facts: Facts | None = None
    near: Sequence[Picture] = ()
    colour: str = ""
    title: str = ""


@dataclass(frozen=True)
class Gallery:
    """Cards side by side. Looks: cases, patches, group, panels, neighbours, found."""

    cards: Sequence[Card]
    look: str


@dataclass(frozen=True)
class Details:
    """Blocks that a page shows folded, under their summary."""

    summary: str
    blocks: "Blocks"


@dataclass(frozen=True)
class Group:
    """Blocks or sections that a page lays out together; other renderers show them one after another.

    `title` is a heading beneath that of the section. `caption` is shown on the page only: the charts within say it too.
    Looks: columns (of `column`s), column, pair, wide, maps, two, patches, told, split.
    """

    blocks: "Blocks"
    look: str = ""
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Verdict:
    """The verdict at the top of a page. `level` is good, care, bad or plain; `said` follows the headline, `shown` stands beside it.

    `look` "compared": remarks are not shown as warnings.
    """

    level: str
    badge: str
    headline: str
    remarks: Sequence[Text] = ()
    said: "Blocks" = ()
    shown: "Blocks" = ()
    facts: Facts | None = None
    look: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of a document. `absent` is the reason why it is empty; `badge` is (level, word) before the title."""

    title: str = ""
    blocks: "Blocks" = ()
    key: str = ""
    absent: str | None = None
    badge: tuple[str, str] | None = None
    look: str = ""


Block = (
    Paragraph
    | Items
    | Facts
    | Preformatted
    | Table
    | Tiles
    | Chart
    | Legend
    | Scale
    | Picture
    | Gallery
    | Details
    | Group
    | Verdict
)
Blocks = Sequence[Block | Section | None]


@dataclass(frozen=True)
class Document:
    """A title, an introduction, sections (in groups where a page lays them side by side), and a footer."""

    title: str
    body: Blocks
    intro: Blocks = ()
    footer: str = ""


def absent(title: str, reason: str, key: str = "") -> Section:
    """A section that could not be made; `reason` says why, without a full stop."""
    return Section(title, key=key, absent=reason)


def pieces(text: Text) -> Sequence[Inline]:
    """The pieces of a sentence."""
    return text if isinstance(text, (list, tuple)) else (text,)


def plain(text: Any) -> str:
    """A text, Cell, number or path as one line of plain text; small print is in brackets."""
    if isinstance(text, Cell):
        return plain(text.text) + (f" ({plain(text.below)})" if text.below else "")
    words = (piece.text if isinstance(piece, (Strong, Code, Link)) else str(piece) for piece in pieces(text))
    return " ".join("".join(words).split())
