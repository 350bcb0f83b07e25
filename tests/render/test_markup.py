"""Markup escapes what is not markup."""

from pcam_ssl.render.markup import Markup, fold_out, join, table, tag, three, with_interval


def test_text_is_escaped_and_markup_is_not():
    assert tag("p", "a < b", tag("b", "&")) == "<p>a &lt; b<b>&amp;</b></p>"


def test_attributes_are_escaped():
    assert tag("p", aria_label='" onload="x') == '<p aria-label="&quot; onload=&quot;x"></p>'


def test_names_of_attributes_become_those_of_html_and_none_is_left_out():
    assert tag("line", class_="a", stroke_width=2, title=None) == '<line class="a" stroke-width="2"></line>'


def test_nested_lists_and_none_are_joined():
    assert join(["a", ["<", None], Markup("<br>")]) == "a&lt;<br>"


def test_a_text_joined_to_markup_is_no_longer_trusted():
    assert tag("p", Markup("<b>") + "<script>") == "<p>&lt;b&gt;&lt;script&gt;</p>"


def test_cells_of_a_table_and_a_summary_are_escaped():
    assert "<script>" not in table(["<script>"], [["<script>", "<script>"]], "<script>") + fold_out("<script>", "<script>")


def test_an_undefined_score_is_a_dash():
    assert three(None) == with_interval({"value": None, "low": None, "high": None}) == "-"


def test_an_interval_stands_beneath_its_value():
    assert with_interval({"value": 0.1, "low": -0.05, "high": 0.25}, signed=True) == "+0.100<small>-0.050 to +0.250</small>"


def test_a_value_without_interval_stands_alone():
    assert with_interval({"value": 0.5, "low": None, "high": None}) == "0.500"
