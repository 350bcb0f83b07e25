"""What a page of the house says, without its looks: headings, sentences, tables, and charts and pictures by their words."""

from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

HEADINGS = ("h1", "h2", "h3")
SENTENCES = ("p", "caption", "footer")
ITEMS = ("li", "figure")
# Elements whose text is taken when they end; whatever was gathered before belongs to none.
GATHERING = (*HEADINGS, "p", "caption", "dt", "dd", "th", "td", "summary", "pre")
SKIPPED = ("style", "title", "svg")
ABSENT = "Not shown: "
# Between pictures and lines of a caption, which stand one under the other; no text of a page holds it.
BREAK = "\0"


@dataclass(frozen=True)
class Block:
    """`kind`: h1, h2, h3, text, item, chart, opens (what opens on request), pre, or table, whose first row is its head."""

    kind: str
    text: str = ""
    rows: tuple[tuple[str, ...], ...] = ()


def page_blocks(page: str) -> list[Block]:
    """The page from top to bottom, each text as the data had it."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.blocks


def page_sections(blocks: list[Block]) -> list[dict[str, Any]]:
    """The sections of a page as JSON values; "absent" says why one could not be made, else it is None."""
    sections: list[dict[str, Any]] = []
    for block in blocks:
        if block.kind in ("h1", "h2"):
            sections.append({"title": block.text, "absent": None, "text": [], "charts": [], "tables": []})
        elif block.kind == "table":
            head, *rows = block.rows
            sections[-1]["tables"].append({"head": list(head), "rows": [list(row) for row in rows]})
        elif block.kind == "chart":
            sections[-1]["charts"].append(block.text)
        elif block.text.startswith(ABSENT):
            sections[-1]["absent"] = block.text.removeprefix(ABSENT).removesuffix(".")
        else:
            sections[-1]["text"].append(block.text)
    return sections


class _Reader(HTMLParser):
    """Gathers text until the element that it belongs to ends, then makes a block of it."""

    def __init__(self):
        super().__init__()
        self.blocks: list[Block] = []
        self.text: list[str] = []
        self.term = ""
        self.rows: list[list[str]] = []
        self.skipping: list[str] = []
        self.items = 0

    def handle_starttag(self, name, attributes):
        known = dict(attributes)
        if name == "svg" and known.get("role") == "img":
            self._add("chart", known["aria-label"])
        if self.skipping or name in SKIPPED or known.get("class") == "legend" or known.get("aria-hidden") == "true":
            self.skipping += [name] if not self.skipping or name == self.skipping[0] else []
        elif name == "table":
            self.rows = []
        elif name == "tr":
            self.rows.append([])
        elif name == "img" and known.get("alt"):
            self.text += [BREAK, known["alt"], BREAK]
        elif name == "small":
            self.text.append(" (")
        elif name in ITEMS:
            self.text = self.text if self.items else []
            self.items += 1
        elif name in GATHERING or known.get("class", "").startswith("tile "):
            self.text = []

    def handle_endtag(self, name):
        if self.skipping:
            self.skipping = self.skipping[:-1] if name == self.skipping[0] else self.skipping
        elif name in ("th", "td"):
            self.rows[-1].append(self._taken())
        elif name == "table":
            self.blocks.append(Block("table", rows=tuple(map(tuple, self.rows))))
        elif name == "pre":
            self.blocks.append(Block("pre", "".join(self.text)))
            self.text = []
        elif name == "small":
            self.text.append(")")
        elif name in ("span", "b"):
            self.text.append(BREAK if self.items else " ")
        elif name == "dt":
            self.term = self._taken()
        elif name == "dd":
            self._add("item", f"{self.term}: {self._taken()}")
        elif name in (*ITEMS, "div"):
            self.items -= name in ITEMS
            # A figure in an item, and a div in either, are part of it.
            if not self.items:
                self._add("item", self._taken())
        elif name in (*SENTENCES, *HEADINGS, "summary"):
            self._add("opens" if name == "summary" else "text" if name in SENTENCES else name, self._taken())

    def handle_data(self, data):
        if not self.skipping:
            self.text.append(data)

    def _taken(self) -> str:
        lines, self.text = "".join(self.text).split(BREAK), []
        return "; ".join(" ".join(line.split()) for line in lines if line.strip())

    def _add(self, kind: str, text: str) -> None:
        if text:
            self.blocks.append(Block(kind, text))
