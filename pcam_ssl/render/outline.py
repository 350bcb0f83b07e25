"""The content of a document without layout: headings, sentences, tables, and the alt texts of charts and pictures; and the same as JSON values."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pcam_ssl.render.document import (
    Card,
    Chart,
    Details,
    Document,
    Facts,
    Gallery,
    Group,
    Items,
    Line,
    Paragraph,
    Picture,
    Preformatted,
    Section,
    Table,
    Text,
    Tiles,
    Verdict,
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
