"""The content of a document without layout, and as JSON values."""

import numpy as np
from markupsafe import Markup

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
    Paragraph,
    Preformatted,
    Section,
    Table,
    Tiles,
    Verdict,
    absent,
)
from pcam_ssl.render.html import picture
from pcam_ssl.render.text import entries, outline, sections, values


def told(*blocks) -> list[tuple]:
    return [(entry.kind, entry.text) for entry in entries(blocks)]


def test_headings_sentences_tables_and_items_in_order():
    table = Table(("name", "n"), (("a", 1),), "Counts")
    section = Section("Title", (Paragraph("A line."), None, table, Items(("one",))))
    assert told(section) == [("h2", "Title"), ("text", "A line."), ("text", "Counts"), ("table", ""), ("item", "one")]


def test_terms_stand_with_what_they_mean():
    assert told(Facts((("Run", Cell("a", title="a whole")),))) == [("item", "Run: a")]


def test_a_chart_is_its_words_and_its_legend_is_left_out():
    assert told(Legend((("line", "c1", "fold 0"),)), Chart(Markup("<svg/>"), "ROC, area 0.9")) == [("chart", "ROC, area 0.9")]


def test_an_interval_stands_in_brackets():
    assert told(Tiles((("AUROC", Cell("0.9", below="0.8 to 1"), "c1"),))) == [("item", "AUROC 0.9 (0.8 to 1)")]


def test_what_a_page_folds_away_is_there():
    assert told(Details("Numbers", (Preformatted("1\n  2"),))) == [("opens", "Numbers"), ("pre", "1\n  2")]


def test_a_card_is_one_item_without_silent_lines():
    image = picture(np.zeros((8, 8, 3), np.uint8), "patch a1")
    near = picture(np.zeros((8, 8, 3), np.uint8), "near: tumor")
    card = Card((image,), (Line("tumor", strong=True), "prob 0.9", Line("a1", silent=True)), near=(near,))
    assert told(Gallery((card,), "cases")) == [("item", "patch a1; tumor; prob 0.9; near: tumor")]


def test_a_caption_of_the_page_alone_is_left_out_and_a_title_is_not():
    assert told(Group((Paragraph("x"),), "two", title="Near", caption="Fold 1")) == [("h3", "Near"), ("text", "x")]


def test_a_verdict_begins_with_its_badge():
    verdict = Verdict("good", "Can be believed", "All is well.", ("But.",), shown=(Paragraph("n"),), facts=Facts((("a", 1),)))
    assert [text for _, text in told(verdict)] == ["Can be believed", "All is well.", "But.", "n", "a: 1"]


def test_sections_as_json_values():
    body = (
        Paragraph(("see ", Code("x"))),
        Group((Section("A & B", (Paragraph("x"), Table(("n",), ((1,),)))),), "pair"),
        absent("C", "it has no `e`; take f"),
    )
    document = Document("Run", body, footer="For research.")
    first, second, third = sections(document)
    assert first == {"title": "Run", "absent": None, "text": ["see x"], "charts": [], "tables": []}
    assert (second["title"], second["text"], second["tables"]) == ("A & B", ["x"], [{"head": ["n"], "rows": [["1"]]}])
    assert (third["absent"], third["text"]) == ("it has no `e`; take f", ["For research."])
    assert values(document) == {"title": "Run", "sections": [first, second, third]}


def test_text_is_as_the_data_had_it():
    assert [entry.text for entry in outline(Document("<b> & |", (Paragraph("*x*"),)))] == ["<b> & |", "*x*"]
