"""Markdown in which text from data stays text: no HTML, no link, no image, no column of its own."""

import re

# Underscores within a word mean nothing in markdown; three backticks would open a block that swallows the rest.
SPECIAL = re.compile(r"[\\*\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|`(?=``)|(?<=`)`(?=`)|(?<=``)`")
ENTITY = re.compile(r"&(?=#?\w+;)")
BLOCK_START = re.compile(r"^(\d*)(#|~~|--|[+.)-](?=\s|$))")


def escaped(text: str) -> str:
    """A line of text as markdown that shows the same text; backticks keep their meaning, for the sentences that quote commands."""
    line = ENTITY.sub("&amp;", " ".join(str(text).split()))
    line = SPECIAL.sub(lambda found: f"\\{found[0]}", line)
    return line.replace("<", "&lt;").replace(">", "&gt;")


def block(line: str) -> str:
    """An escaped line that begins no list and no heading."""
    return BLOCK_START.sub(r"\1\\\2", line)


def row(cells: list[str]) -> str:
    """A line of a table from escaped cells."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table of escaped cells; numbers stand right, the first column left."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(row(cells) for cells in (head, rule, *rows))


def fenced(text: str) -> str:
    """Text shown as it is, within a fence that it cannot close."""
    fence = "`" * max(3, 1 + max((len(found) for found in re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"
