"""Markdown and terminal text of a document: a real markdown parser gives back exactly the text of the data."""

import pytest
from markdown_it import MarkdownIt

from pcam_ssl.render.document import Code, Details, Document, Items, Link, Paragraph, Preformatted, Section, Strong, Table, absent
from pcam_ssl.render.text import aligned, markdown, terminal

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b||c",
    "![x](http://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "# heading",
    "- item",
    "---",
    "1. item",
    "12) item",
    "+ item",
    "~~~",
    "```",
    "````sh",
    "*bold* _soft_ __loud__",
    "back\\slash",
    "&lt;b&gt; &#60;",
    "> quoted",
    "<http://evil.example>",
]


def shown(*blocks) -> str:
    """Markdown of the blocks, below the title."""
    return markdown(Document("t", blocks)).removeprefix("# t\n\n")


def parsed(text: str) -> list:
    """Flat tokens of the text."""
    flat = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        flat += token.children if token.type == "inline" else [token]
    return flat


@pytest.mark.parametrize("text", HOSTILE)
def test_a_paragraph_shows_its_text_and_is_one_paragraph(text):
    tokens = parsed(shown(Paragraph(text)))
    assert [token.type for token in tokens if token.type not in ("text", "text_special")] == ["paragraph_open", "paragraph_close"]
    assert "".join(token.content for token in tokens) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(text):
    tokens = parsed(shown(Table(("name", "n"), ((text, "1"),))))
    assert sum(token.type == "td_open" for token in tokens) == 2
    assert {token.type for token in tokens} & {"html_inline", "link_open", "image", "fence"} == set()
    assert text in "".join(token.content for token in tokens)


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.strip("`")])
def test_code_shows_its_text(text):
    (code,) = [token for token in parsed(shown(Paragraph(("x ", Code(text), ".")))) if token.type == "code_inline"]
    assert code.content == text


def test_pieces_of_a_sentence():
    text = ("Next: ", Strong("a*b"), ", see ", Link("docs", "https://example.org/a b"), ".")
    assert shown(Paragraph(text)) == "Next: **a\\*b**, see [docs](<https://example.org/ab>).\n"


def test_commands_in_backticks_stay_code():
    tokens = parsed(shown(Paragraph("run `pcam-ssl report RUN`")))
    assert [token.content for token in tokens if token.type == "code_inline"] == ["pcam-ssl report RUN"]


@pytest.mark.parametrize("text", ["plain", "```\nrm\n```", "````"])
def test_lines_to_copy_cannot_close_their_fence(text):
    (fence,) = parsed(shown(Preformatted(text)))
    assert (fence.type, fence.content) == ("fence", f"{text}\n")


def test_sections_tables_and_lists():
    section = Section("Title", (Paragraph("A line."), Table(("name", "n"), (("a_b", 1),)), Items(("one", "- two"))))
    assert shown(section) == "## Title\n\nA line.\n\n| name | n |\n| --- | ---: |\n| a_b | 1 |\n\n- one\n- \\- two\n"


def test_what_a_page_folds_away_and_what_is_absent():
    assert shown(Details("Numbers", (Preformatted("1"),)), absent("C", "no d")) == (
        "**Numbers**\n\n```\n1\n```\n\n## C\n\nNot shown: no d.\n"
    )


def test_a_table_is_aligned_as_it_says():
    table = Table(("score", "n", ""), (("a", "1,000", "x"), ("long", "2", "")), align="lrl")
    assert aligned(table) == "score      n\na      1,000  x\nlong       2"


def test_the_terminal_shows_sections_apart_and_tables_after_an_empty_line():
    told = Section("Title", (Paragraph("A sentence."), Preformatted("pcam-ssl x"), Table(("a", "b"), (("1", "2"),))))
    other = Section("", (Table(("a", "b"), (("1", "2"),)), Items(("- : why",), "note"), Items(("one",))))
    assert terminal((told, None, other)) == "Title\n-----\nA sentence.\n  pcam-ssl x\n\na  b\n1  2\n\na  b\n1  2\n- : why\n- one"


def test_long_sentences_are_wrapped_and_notes_hang():
    section = Section("", (Paragraph("one two three"), Items(("one two three",), "note")))
    assert terminal((section,), width=9) == "one two\nthree\none two\n  three"


def test_the_terminal_says_why_a_section_is_absent():
    assert terminal((absent("C", "no d"),)) == "C\n-\nNot shown: no d."


def test_the_last_column_is_wrapped_to_a_width():
    table = Table(("id", "reason"), (("a", "one two three four five"),), align="ll")
    assert aligned(table, 24) == "id  reason\na   one two three four\n    five"


def test_columns_are_as_wide_as_a_terminal_shows_their_letters():
    assert aligned(Table(("a", "b"), (("切片", "1"), ("x", "2")))) == "a     b\n切片  1\nx     2"


def test_without_a_head_there_is_no_line_for_it():
    assert aligned(Table((), [("network", "fold 2"), ("call", "tumor")], align="ll")) == "network  fold 2\ncall     tumor"
