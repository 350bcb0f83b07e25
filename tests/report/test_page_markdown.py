"""A run's page as markdown: the same sections, numbers and absences, charts and pictures by their words."""

import re

import pytest
from markdown_it import MarkdownIt
from pcam_ssl.report.page import page
from pcam_ssl.report.page_markdown import page_markdown

from pcam_ssl.render.markup import card, fold_out, table, tag
from pcam_ssl.runs.contents import read_facts

HOSTILE = "<script>alert(1)</script>|x"


@pytest.fixture
def whole(write_run):
    """whole(**choices): the page of a run."""
    return lambda **choices: page(read_facts(write_run(**choices)))


def test_headings_tables_and_lists():
    items = tag("ul", tag("li", "one"), tag("li", "- two"))
    shown = page_markdown(card("Title", tag("p", "A line."), table(["name", "n"], [["a_b", 1]]), items))
    assert shown == "## Title\n\nA line.\n\n| name | n |\n| --- | ---: |\n| a_b | 1 |\n\n- one\n- \\- two\n"


def test_what_opens_on_request_is_open():
    assert page_markdown(fold_out("Numbers", tag("pre", "1"))) == "**Numbers**\n\n```\n1\n```\n"


def test_every_section_table_and_absence_of_the_page_is_there(whole):
    found = whole(held_out=True)
    shown = page_markdown(found)
    for title in re.findall(r"<h2>([^<]*)</h2>", found):
        assert f"## {title}\n" in shown
    assert shown.count("\n| --- |") == found.count("<table>")
    assert shown.count("Chart: ") == found.count('role="img"')
    assert shown.count("Not shown: ") == found.count('<p class="absent">') > 0


def test_text_from_data_stays_text(whole):
    shown = page_markdown(whole(slides=(HOSTILE, *(f"slide-{i}" for i in range(11))), marks={"notes": [HOSTILE]}))
    html = MarkdownIt("commonmark").enable("table").render(shown)
    assert "<script" not in shown
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;|x") >= 2
