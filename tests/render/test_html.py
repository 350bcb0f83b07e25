"""A page: every block is there, text from data is escaped, and nothing is fetched or run."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from markupsafe import Markup

from pcam_ssl.render import html
from pcam_ssl.render.document import (
    Card,
    Cell,
    Chart,
    Code,
    Details,
    Document,
    Facts,
    Gallery,
    Group,
    Items,
    Legend,
    Line,
    Link,
    Paragraph,
    Preformatted,
    Scale,
    Section,
    Strong,
    Table,
    Tiles,
    Verdict,
    absent,
)
from pcam_ssl.render.html import picture

HOSTILE = '"><script>alert(1)</script>'
PIXELS = np.full((96, 96, 3), 200, np.uint8)


def shown(*blocks) -> str:
    """The blocks as a page shows them, without spaces between elements."""
    return re.sub(r">\s+<", "><", html.fragment(blocks).strip())


def everything(text: str) -> Document:
    """A document with every block, in which all text is `text`."""
    image = picture(PIXELS, text, title=text, centre_px=32)
    card = Card(
        (image,), (Line(text, title=text, strong=True), text), Facts(((text, Cell(text, title=text)),)), (image,), "c1", text
    )
    facts = Facts(((text, text),))
    blocks = (
        Paragraph((text, Strong(text), Code(text), Link(text, text))),
        Items((text,)),
        facts,
        Preformatted(text),
        Table((text, text), ((text, Cell(text, below=text, strong=True, title=text, shade=0.5)),), text),
        Tiles(((text, text, "c1"),)),
        Chart(Markup("<svg></svg>"), text),
        Legend((("circle", "c1", text),)),
        Scale(text, text),
        image,
        Gallery((card,), "cases"),
        Details(text, (Paragraph(text),)),
        Group((Paragraph(text),), "wide", title=text, caption=text),
        None,
    )
    verdict = Verdict("good", text, text, (text,), (Paragraph(text),), (Paragraph(text),), facts)
    return Document(text, (verdict, Section(text, blocks, badge=("bad", text)), absent(text, text)), (Paragraph(text),), text)


class Balance(HTMLParser):
    """Fails at an element that another one closes; keeps the text."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, name, attributes):
        if name not in ("meta", "link", "img"):
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data


def test_every_element_of_every_block_is_closed():
    assert Balance(html.page(everything("zebra"))).open == []


def test_text_from_data_is_escaped_in_every_block():
    page = html.page(everything(HOSTILE))
    assert "<script" not in page
    assert Balance(page).text.count(HOSTILE) == Balance(html.page(everything("zebra"))).text.count("zebra") > 25


def test_nothing_is_fetched_and_nothing_runs():
    page = html.page(everything("zebra"))
    assert not re.search(r"""src="(?!data:)|url\(|@import|https?://|<script|\son\w+=""", page)
    assert "default-src 'none'" in page


def test_the_same_document_gives_the_same_page():
    assert html.page(everything("zebra")) == html.page(everything("zebra"))


def test_a_chart_that_is_no_markup_is_escaped():
    assert "<script" not in shown(Chart(HOSTILE, "words"))


def test_an_interval_stands_beneath_its_value():
    assert "<td>0.900<small>0.850 to 0.950</small></td>" in shown(Table(("a", "b"), (("x", Cell("0.900", "0.850 to 0.950")),)))


def test_columns_of_words_stand_left():
    table = Table(("a", "b", "c"), (("x", "y", 1),), align="llr")
    assert '<th scope="row">x</th><td class="words">y</td><td>1</td>' in shown(table)


def test_a_cell_is_shaded_by_its_value():
    assert '<td style="--v:0.25">0.7</td>' in shown(Table(("a", "b"), (("x", Cell("0.7", shade=0.25)),), look="heat"))


def test_lines_to_copy_keep_their_spaces():
    assert shown(Preformatted("a\n  b")) == "<pre>a\n  b</pre>"


def test_pieces_of_a_sentence_follow_each_other_without_spaces_of_their_own():
    assert shown(Paragraph(("run ", Code("a b"), "."))) == "<p>run <code>a b</code>.</p>"


def test_an_absent_section_says_why():
    assert (
        shown(absent("Slides", "unknown"))
        == '<section class="card"><h2>Slides</h2><p class="absent">Not shown: unknown.</p></section>'
    )


def test_the_outline_of_a_picture_is_its_centre():
    assert "--edge: 33.3333%" in shown(picture(PIXELS, "patch", centre_px=32))
    assert "--edge" not in shown(picture(PIXELS[:32, :32], "patch", centre_px=32))


def test_an_unknown_block_is_no_page():
    with pytest.raises(Exception, match="unknown_block"):
        html.fragment([object()])
