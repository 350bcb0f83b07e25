"""What a page says, without its looks."""

from pcam_ssl.report.page_blocks import Block, page_blocks, page_sections

from pcam_ssl.render.markup import absent, card, fold_out, join, table, tag


def test_headings_sentences_items_and_tables():
    made = card("Title", tag("p", "A  line."), table(["name", "n"], [["a", 1]]), tag("ul", tag("li", "one")))
    assert page_blocks(made) == [
        Block("h2", "Title"),
        Block("text", "A line."),
        Block("table", rows=(("name", "n"), ("a", "1"))),
        Block("item", "one"),
    ]


def test_text_is_as_the_data_had_it():
    assert page_blocks(tag("p", "<b> & |")) == [Block("text", "<b> & |")]


def test_terms_stand_with_what_they_mean():
    assert page_blocks(tag("dl", tag("dt", "Run"), tag("dd", "a"))) == [Block("item", "Run: a")]


def test_a_chart_is_its_words_and_its_letters_are_no_text():
    chart = tag("svg", tag("text", "0.5"), tag("title", "dot"), role="img", aria_label="ROC, area 0.9")
    assert page_blocks(join([chart, tag("p", "after")])) == [Block("chart", "ROC, area 0.9"), Block("text", "after")]


def test_a_legend_is_left_out_since_the_chart_says_it():
    legend = tag("ul", tag("li", tag("svg", aria_hidden="true"), "fold 0"), class_="legend")
    assert page_blocks(join([legend, tag("ul", tag("li", "after"))])) == [Block("item", "after")]


def test_a_picture_is_its_words():
    image = tag("img", src="data:,", alt="patch a1").removesuffix("</img>")
    figure = tag("figure", type(tag("p"))(image), tag("figcaption", tag("b", "a1"), tag("span", "tumor"), tag("span", "prob 0.9")))
    assert page_blocks(figure) == [Block("item", "patch a1; a1; tumor; prob 0.9")]


def test_an_interval_stands_in_brackets():
    assert page_blocks(tag("div", tag("span", "AUROC"), tag("b", "0.9", tag("small", "0.8 to 1")), class_="tile c1")) == [
        Block("item", "AUROC 0.9 (0.8 to 1)")
    ]


def test_what_opens_on_request_is_open():
    assert page_blocks(fold_out("Numbers", tag("pre", "1\n  2"))) == [Block("opens", "Numbers"), Block("pre", "1\n  2")]


def test_sections_with_their_tables_and_why_one_is_absent():
    page = join([tag("h1", "Run"), card("A & B", tag("p", "x"), table(["n"], [[1]])), absent("C", "it has no `e`; take f")])
    first, second, third = page_sections(page_blocks(page))
    assert first == {"title": "Run", "absent": None, "text": [], "charts": [], "tables": []}
    assert (second["title"], second["text"], second["tables"]) == ("A & B", ["x"], [{"head": ["n"], "rows": [["1"]]}])
    assert (third["title"], third["absent"]) == ("C", "it has no `e`; take f")


def test_a_picture_in_an_item_is_part_of_it():
    image = type(tag("p"))('<img alt="patch a1">')
    item = tag("li", tag("figure", tag("div", image), tag("figcaption", "prob 0.9")), tag("div", tag("span", "near")))
    assert page_blocks(tag("ol", item)) == [Block("item", "patch a1; prob 0.9near")]


def test_what_a_screen_reader_leaves_out_is_left_out():
    assert page_blocks(tag("p", "said", tag("span", tag("span", "twice"), aria_hidden="true"))) == [Block("text", "said")]
