"""A run's page as markdown: the same sections, numbers and reasons for absent ones, with the alt texts of charts and pictures."""

import re

import pytest
from markdown_it import MarkdownIt

from pcam_ssl.render import html
from pcam_ssl.render.text import markdown
from pcam_ssl.report.report import Report
from pcam_ssl.runs.contents import read_facts

HOSTILE = "<script>alert(1)</script>|x"


@pytest.fixture
def document(write_run):
    """document(**choices): what the page of a run says."""
    return lambda **choices: Report(read_facts(write_run(**choices))).document


def test_every_section_table_and_absence_of_the_page_is_there(document):
    made = document(held_out=True)
    found, shown = html.page(made), markdown(made)
    for title in re.findall(r"<h2>([^<]*)</h2>", found):
        assert f"## {title}\n" in shown
    assert shown.count("\n| --- |") == found.count("<table>")
    assert shown.count("Chart: ") == found.count('role="img"')
    assert shown.count("Not shown: ") == found.count('<p class="absent">') > 0


def test_text_from_data_stays_text(document):
    shown = markdown(document(slides=(HOSTILE, *(f"slide-{i}" for i in range(11))), marks={"notes": [HOSTILE]}))
    page = MarkdownIt("commonmark").enable("table").render(shown)
    assert "<script" not in shown
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;|x") >= 2
