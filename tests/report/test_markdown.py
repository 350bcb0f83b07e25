"""Markdown that holds text from data: what a real parser makes of it is that text, and nothing else."""

import pytest
from markdown_it import MarkdownIt

from pcam_ssl.report import markdown

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


def parsed(text: str) -> list:
    """Flat tokens of the text."""
    flat = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        flat += token.children if token.type == "inline" else [token]
    return flat


def shown(tokens) -> str:
    return "".join(token.content for token in tokens)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_shows_its_text_and_is_one_paragraph(text):
    tokens = parsed(markdown.block(markdown.escaped(text)))
    assert [token.type for token in tokens if token.type not in ("text", "text_special")] == ["paragraph_open", "paragraph_close"]
    assert shown(tokens) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_stays_one_cell(text):
    tokens = parsed(markdown.table(["name", "n"], [[markdown.escaped(text), "1"]]))
    assert sum(token.type == "td_open" for token in tokens) == 2
    assert {token.type for token in tokens} & {"html_inline", "link_open", "image", "fence"} == set()
    assert text in shown(tokens)


def test_commands_in_backticks_stay_code():
    assert [token.content for token in parsed(markdown.escaped("run `pcam-ssl report RUN`")) if token.type == "code_inline"] == [
        "pcam-ssl report RUN"
    ]


def test_underscores_within_words_need_no_backslash():
    assert markdown.escaped("selected_on_fold") == "selected_on_fold"


def test_lines_are_joined():
    assert markdown.escaped("a\n# b\t c") == "a # b c"


@pytest.mark.parametrize("text", ["plain", "```\nrm\n```", "````"])
def test_a_fence_cannot_be_closed_from_within(text):
    (fence,) = parsed(markdown.fenced(text))
    assert (fence.type, fence.content) == ("fence", f"{text}\n")
