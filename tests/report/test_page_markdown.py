"""A run's page as markdown: the same sections, numbers and absences, charts and pictures by their words."""

import re

import pytest
from markdown_it import MarkdownIt

from pcam_ssl.report.facts import read_facts
from pcam_ssl.report.markup import absent, card, fold_out, join, table, tag
from pcam_ssl.report.page import page
from pcam_ssl.report.page_markdown import absences, page_markdown

HOSTILE = "<script>alert(1)</script>|x"


@pytest.fixture
def whole(write_run):
    """whole(**choices): the page of a run."""
    return lambda **choices: page(read_facts(write_run(**choices)))


def test_headings_tables_and_lists():
    shown = page_markdown(
        card("Title", tag("p", "A line."), table(["name", "n"], [["a_b", 1]]), tag("ul", tag("li", "one"), tag("li", "two")))
    )
    assert shown == "## Title\n\nA line.\n\n| name | n |\n| --- | ---: |\n| a_b | 1 |\n\n- one\n- two\n"


def test_terms_stand_with_what_they_mean():
    assert (
        page_markdown(tag("dl", tag("dt", "Run"), tag("dd", "runs/a"), tag("dt", "Time"), tag("dd", "3 s")))
        == "- Run: runs/a\n- Time: 3 s\n"
    )


def test_a_chart_is_its_words_and_its_letters_are_not_text():
    chart = tag("svg", tag("text", "0.5"), tag("title", "dot"), role="img", aria_label="ROC, area 0.9")
    assert page_markdown(chart) == "Chart: ROC, area 0.9\n"


def test_a_legend_is_left_out_since_the_chart_says_it():
    assert (
        page_markdown(join([tag("ul", tag("li", tag("svg", aria_hidden="true"), "fold 0"), class_="legend"), tag("p", "after")]))
        == "after\n"
    )


def test_a_picture_is_its_words():
    figure = tag(
        "figure",
        tag("img", src="data:,", alt="patch a1"),
        tag("figcaption", tag("b", "a1"), tag("span", "tumor"), tag("span", "prob 0.9")),
    )
    assert page_markdown(figure) == "- patch a1. a1 tumor prob 0.9\n"


def test_what_opens_on_request_is_open():
    assert page_markdown(fold_out("Numbers", tag("p", "1"))) == "**Numbers**\n\n1\n"


def test_absences_by_title():
    found = absences(join([card("A & B", tag("p", "x")), absent("C <d>", "it has no `e`; take f"), absent("G", "h")]))
    assert found == {"C <d>": "it has no `e`; take f", "G": "h"}


def test_every_section_table_and_absence_of_the_page_is_there(whole):
    found = whole(held_out=True)
    shown = page_markdown(found)
    for title in re.findall(r"<h2>([^<]*)</h2>", found):
        assert f"## {title}\n" in shown
    assert shown.count("\n| --- |") == found.count("<table>")
    assert shown.count("Chart: ") == found.count('role="img"')
    assert shown.count("Not shown: ") == len(absences(found)) > 0


def test_text_from_data_stays_text(whole):
    shown = page_markdown(whole(slides=(HOSTILE, *(f"slide-{i}" for i in range(11))), marks={"notes": [HOSTILE]}))
    html = MarkdownIt("commonmark").enable("table").render(shown)
    assert "<script" not in shown
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;|x") >= 2
