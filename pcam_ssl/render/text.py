"""A document as text: its outline as JSON values, markdown, and aligned text for the terminal."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from pcam_ssl.render.document import (
    Card,
    Chart,
    Code,
    Details,
    Document,
    Facts,
    Gallery,
    Group,
    Items,
    Line,
    Link,
    Paragraph,
    Picture,
    Preformatted,
    Section,
    Strong,
    Table,
    Text,
    Tiles,
    Verdict,
    pieces,
    plain,
)


@dataclass(frozen=True)
class Entry:
    """`kind`: h1, h2, h3, text, item, chart, absent, opens (the summary of folded blocks), pre, or table."""

    kind: str
    text: Text = ""
    table: Table | None = None


def outline(document: Document) -> Iterator[Entry]:
    """The document from top to bottom. Blocks that a page lays side by side follow one another; folded blocks are included."""
    yield Entry("h1", document.title)
    yield from entries(document.intro)
    yield from entries(document.body)
    if document.footer:
        yield Entry("text", document.footer)


def entries(blocks) -> Iterator[Entry]:
    """The entries of some blocks; a legend repeats the words of its chart and is left out."""
    for block in blocks:
        yield from (entry for entry in _entries(block) if entry.kind == "table" or plain(entry.text))


def values(document: Document) -> dict[str, Any]:
    """The document as JSON values: `title` and `sections`, of which the first holds everything before the first section."""
    return {"title": document.title, "sections": sections(document)}


def sections(document: Document) -> list[dict[str, Any]]:
    """Sections as JSON values, with their texts, charts and tables; "absent" is the reason why one could not be made, else None."""
    found: list[dict[str, Any]] = []
    for entry in outline(document):
        if entry.kind in ("h1", "h2"):
            found.append({"title": plain(entry.text), "absent": None, "text": [], "charts": [], "tables": []})
        elif entry.kind == "table":
            rows = [[plain(cell) for cell in row] for row in entry.table.rows]
            found[-1]["tables"].append({"head": [plain(name) for name in entry.table.head], "rows": rows})
        elif entry.kind == "chart":
            found[-1]["charts"].append(plain(entry.text))
        elif entry.kind == "absent":
            found[-1]["absent"] = plain(entry.text)
        else:
            found[-1]["text"].append(entry.text if entry.kind == "pre" else plain(entry.text))
    return found


def _entries(block) -> Iterator[Entry]:
    match block:
        case Section():
            yield Entry("h2", f"{block.badge[1]} {block.title}" if block.badge else block.title)
            yield Entry("absent", block.absent or "")
            yield from entries(block.blocks)
        case Verdict():
            yield Entry("text", block.badge)
            yield Entry("text", block.headline)
            yield from entries((*block.said, Items(block.remarks), *block.shown, block.facts))
        case Group():
            yield Entry("h3", block.title)
            yield from entries(block.blocks)
        case Details():
            yield Entry("opens", block.summary)
            yield from entries(block.blocks)
        case Paragraph():
            yield Entry("text", block.text)
        case Preformatted():
            yield Entry("pre", block.text)
        case Items():
            yield from (Entry("item", item) for item in block.items)
        case Facts():
            yield from (Entry("item", f"{name}: {plain(value)}") for name, value in block.pairs)
        case Tiles():
            yield from (Entry("item", f"{name} {plain(value)}") for name, value, _ in block.tiles)
        case Table():
            yield Entry("text", block.caption)
            yield Entry("table", table=block)
        case Chart():
            yield Entry("chart", block.alt)
        case Picture():
            yield Entry("item", block.alt)
        case Gallery():
            yield from (Entry("item", _card_words(card)) for card in block.cards)


def _card_words(card: Card) -> str:
    """Pictures, caption, facts and neighbours of a card in one line."""
    lines = [line.text if isinstance(line, Line) else line for line in card.lines if not (isinstance(line, Line) and line.silent)]
    facts = [f"{name}: {plain(value)}" for name, value in card.facts.pairs] if card.facts else []
    words = [*(picture.alt for picture in card.pictures), *lines, *facts, *(picture.alt for picture in card.near)]
    return "; ".join(word for word in map(plain, words) if word)


WIDTH = 100
LEAST = 20
"""The least width of the last column of a table, in characters."""
HEADINGS = {"h1": "# ", "h2": "## ", "h3": "### "}
NOT_SHOWN = "Not shown: {}."
# Underscores within a word mean nothing in markdown; three backticks would open a block that swallows the rest.
SPECIAL = re.compile(r"[\\*\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|`(?=``)|(?<=`)`(?=`)|(?<=``)`")
ENTITY = re.compile(r"&(?=#?\w+;)")
NO_ADDRESS = re.compile(r"[<>\s]")
BLOCK_START = re.compile(r"^(\d*)(#|~~|--|[+.)-](?=\s|$))")


def markdown(document: Document) -> str:
    """The whole document. Text from data is escaped: it makes no HTML, link, image, heading or column."""
    lines: list[str] = []
    before = ""
    for entry in outline(document):
        lines += [_markdown(entry)] if entry.kind == before == "item" else ["", _markdown(entry)]
        before = entry.kind
    return "\n".join(lines[1:]) + "\n"


def terminal(blocks: Iterable, width: int = WIDTH) -> str:
    """Sections or blocks as plain text of `width` columns where words and tables allow; an empty line between sections.

    A section without a title is a part without a heading.
    """
    return "\n\n".join("\n".join(_terminal(block, width)) for block in blocks if block is not None)


def aligned(table: Table, width: int | None = None) -> str:
    """The table in columns of text, without a line for an empty head; lines end without spaces. With a `width` the last column is
    wrapped to keep it.
    """
    # Imported here, since only text tables need tabulate.
    from tabulate import tabulate

    rows = [[plain(cell) for cell in row] for row in ((table.head, *table.rows) if table.head else table.rows)]
    align = ["left" if letter == "l" else "right" for letter in table.columns]
    widths = None
    if width is not None:
        taken = sum(2 + max(len(row[column]) for row in rows) for column in range(len(align) - 1))
        widths = [*[None] * (len(align) - 1), max(width - taken, LEAST)]
    # The head is passed as a row: tabulate would make a header two columns wider.
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align, maxcolwidths=widths)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def escaped(text: str) -> str:
    """A line of text as markdown that shows the same text; backticks keep their meaning, for the sentences that quote commands."""
    line = ENTITY.sub("&amp;", plain(text))
    line = SPECIAL.sub(lambda found: f"\\{found[0]}", line)
    return line.replace("<", "&lt;").replace(">", "&gt;")


def opened(line: str) -> str:
    """An escaped line that begins no list and no heading."""
    return BLOCK_START.sub(r"\1\\\2", line)


def fenced(text: str) -> str:
    """The text unchanged, within a fence that it cannot close."""
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


def _markdown(entry: Entry) -> str:
    if entry.kind == "table":
        return _markdown_table(entry.table)
    if entry.kind == "pre":
        return fenced(entry.text)
    text = _sentence(entry.text)
    if entry.kind in HEADINGS:
        return HEADINGS[entry.kind] + text
    shown = {"item": f"- {opened(text)}", "chart": f"Chart: {text}", "opens": f"**{text}**", "absent": NOT_SHOWN.format(text)}
    return shown.get(entry.kind, opened(text))


def _markdown_table(table: Table) -> str:
    head, *rows = [[escaped(cell) for cell in row] for row in (table.head, *table.rows)]
    rule = ["---" if letter == "l" else "---:" for letter in table.columns]
    lines = (head, rule, *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _sentence(text: Text) -> str:
    """Pieces of a sentence as markdown."""
    if isinstance(text, str):
        return escaped(text)
    return " ".join("".join(map(_piece, pieces(text))).split())


def _piece(piece) -> str:
    match piece:
        case Strong():
            return f"**{escaped(piece.text)}**"
        case Code():
            tick = "`" * (1 + max((len(found) for found in re.findall("`+", piece.text)), default=0))
            space = " " * piece.text.startswith("`")
            return f"{tick}{space}{piece.text}{space}{tick}"
        case Link():
            return f"[{escaped(piece.text)}](<{NO_ADDRESS.sub('', piece.address)}>)"
    # Spaces at either end part a piece from the next.
    text = str(piece)
    return f"{' ' * text[:1].isspace()}{escaped(text)}{' ' * (text[-1:].isspace() and bool(text.strip()))}"


def _terminal(block, width: int) -> list[str]:
    title = block.title if isinstance(block, Section) else ""
    lines = [title, "-" * len(title)] if title else []
    bare = len(lines)
    parts = block.blocks if isinstance(block, Section) else (block,)
    if isinstance(block, Section) and block.absent:
        lines += _wrapped(NOT_SHOWN.format(block.absent), width)
    for part in parts:
        # Notes explain a table, and some begin with the dash that they explain.
        marked = not (isinstance(part, Items) and part.look == "note")
        for entry in entries((part,)):
            if entry.kind == "table" and len(lines) > bare:
                lines.append("")
            lines += _told(entry, width, marked)
    return lines


def _told(entry: Entry, width: int, marked: bool) -> list[str]:
    if entry.kind == "table":
        return aligned(entry.table).split("\n")
    if entry.kind == "pre":
        return [f"  {line}" for line in entry.text.split("\n")]
    text = plain(entry.text)
    if entry.kind == "item":
        return _wrapped(f"- {text}" if marked else text, width, "  ")
    return _wrapped({"opens": f"{text}:", "absent": NOT_SHOWN.format(text)}.get(entry.kind, text), width)


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
