"""The verdict on pseudo-label rounds as text for the terminal and as markdown. No torch."""

from textwrap import wrap
from typing import Any

from pcam_ssl.pseudo_labels.report import Section, sections

WIDTH = 100


def rounds_text(verdict: dict[str, Any]) -> str:
    """Plain text, `WIDTH` columns where words allow, the same in a pipe. `verdict` is what rounds.json holds.

    The verdict comes last: a terminal shows the end of what is printed.
    """
    first, *others = sections(verdict)
    return "\n\n".join("\n".join(_text(section)) for section in (*others, first))


def rounds_markdown(verdict: dict[str, Any]) -> str:
    """The same as markdown, a heading a section, the verdict first."""
    return "\n\n".join("\n\n".join(_markdown(section)) for section in sections(verdict)) + "\n"


def _text(section: Section) -> list[str]:
    lines = [section.title, "-" * len(section.title)]
    for sentence in section.sentences:
        lines += wrap(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)
    if section.command:
        lines.append(f"  {section.command}")
    if section.head:
        table = [section.head, *section.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(section.head))]
        lines += [*([""] if section.sentences else []), *(_aligned(row, widths, section.words) for row in table)]
    for note in section.notes:
        lines += wrap(note, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines


def _aligned(row: tuple[str, ...], widths: list[int], words: int) -> str:
    cells = [
        cell.ljust(width) if place < words else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _markdown(section: Section) -> list[str]:
    blocks = [f"## {section.title}", *section.sentences]
    if section.command:
        blocks.append(f"```\n{section.command}\n```")
    if section.head:
        rule = ["---" if place < section.words else "---:" for place in range(len(section.head))]
        blocks.append("\n".join(f"| {' | '.join(row)} |" for row in (section.head, rule, *section.rows)))
    if section.notes:
        blocks.append("\n".join(f"- `-` {note[2:]}" if note.startswith("- ") else f"- {note}" for note in section.notes))
    return blocks
