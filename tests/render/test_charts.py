"""Charts: positions of values, and alt texts."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from pcam_ssl.render.charts import (
    HEIGHT_PX,
    LABEL_PX,
    LEFT_PX,
    RIGHT_PX,
    TOP_PX,
    WIDTH_PX,
    Axis,
    Chart,
    Mark,
    dot_chart,
    dot_map,
    shortened,
    spanning,
)

UNIT = Axis("x", 0, 1)


def parts(svg: str, name: str, kind: str) -> list:
    """Elements `name` whose class holds `kind`; parsing fails where the SVG is not well-formed."""
    return [element for element in ElementTree.fromstring(svg).iter(name) if kind in element.get("class", "").split()]


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis("", 0, 1), [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (Axis("", 0.5, 1), [0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (Axis("", -3, 30), [0, 10, 20, 30]),
        (Axis("", 1, 2, whole=True), [1, 2]),
    ],
)
def test_ticks_are_round_and_inside(axis, ticks):
    assert axis.ticks() == ticks


def test_zero_has_no_sign():
    assert [f"{tick:g}" for tick in Axis("", -0.5, 0.5).ticks()].count("0") == 1


def test_an_axis_spans_known_values_only():
    axis = spanning("loss", [1.0, None, float("nan"), 2.0])
    assert (axis.low, axis.high) == (0.95, 2.05)


def test_equal_values_still_have_an_axis():
    assert spanning("loss", [0.7, 0.7]).low < 0.7 < spanning("loss", [0.7, 0.7]).high


def test_the_corners_of_a_chart():
    chart = Chart(UNIT, UNIT, "corners")
    chart.dots([0, 1], [0, 1], "c1")
    low, high = parts(chart.block().svg, "circle", "dot")
    assert float(low.get("cx")) == LEFT_PX
    assert float(high.get("cx")) == WIDTH_PX - RIGHT_PX
    assert float(high.get("cy")) == TOP_PX
    assert float(low.get("cy")) > float(high.get("cy")) < HEIGHT_PX


def test_a_missing_value_breaks_a_line():
    chart = Chart(UNIT, UNIT, "gap")
    chart.line([0, 0.5, 1], [0, None, 1], "c1")
    (line,) = parts(chart.block().svg, "path", "line")
    assert line.get("d").count("M") == 2


def test_a_bar_is_as_high_as_its_value():
    chart = Chart(UNIT, UNIT, "bars")
    chart.bars([0, 0.5], [0.5, 1], [0.5, 1], "c0", ["five", "ten"])
    half, whole = parts(chart.block().svg, "rect", "bar")
    assert float(half.get("height")) * 2 == float(whole.get("height"))
    assert half.find("title").text == "five"


def test_a_band_is_closed():
    chart = Chart(UNIT, UNIT, "band")
    chart.band([0, 1], [0, 0.5], [0.5, 1], "c1")
    assert parts(chart.block().svg, "path", "band")[0].get("d").endswith("Z")


def test_a_row_has_its_interval_and_its_name():
    svg = dot_chart([("slide", [Mark(0.5, "c1", "half", 0.0, 1.0)])], UNIT, "rows").svg
    (whisker,) = parts(svg, "line", "whisker")
    (dot,) = parts(svg, "circle", "dot")
    assert (float(whisker.get("x1")), float(whisker.get("x2"))) == (LABEL_PX, WIDTH_PX - RIGHT_PX)
    assert float(dot.get("cx")) == (LABEL_PX + WIDTH_PX - RIGHT_PX) / 2
    assert dot.find("title").text == "half"


def test_a_long_name_is_shortened_and_whole_on_request():
    name = "TCGA-AA-0001-01Z-00-DX1.slide"
    assert len(shortened(name)) == 22
    assert f"<title>{name}</title>" in dot_chart([(name, [])], UNIT, "rows").svg


def test_alt_text_and_labels_are_escaped():
    chart = Chart(Axis("<script>", 0, 1), UNIT, '"><script>')
    chart.line([0, 1], [0, 1], "c1", "<script>")
    rows = dot_chart([("<script>", [Mark(0, "c1", "<script>")])], UNIT, "<script>")
    page = chart.block().svg + rows.svg
    assert "<script>" not in page
    assert ElementTree.fromstring(chart.block().svg).get("aria-label") == '"><script>'


def test_a_map_has_one_path_for_each_colour_and_one_scale_for_both_axes():
    chart = dot_map(np.array([[0.0, 0], [1, 0], [4, 1]]), np.array([1, 1, 2]), "three patches")
    dots = {path.get("class"): path.get("d") for path in ElementTree.fromstring(chart.svg).iter("path")}
    assert {look: path.count("h0") for look, path in dots.items()} == {"points c1": 2, "points c2": 1}
    places = [[int(number) for number in dot.split()] for path in dots.values() for dot in path[1:].replace("h0", "").split("M")]
    (first, second, third) = places
    assert abs((third[0] - first[0]) - 4 * (second[0] - first[0])) <= 2
    assert abs((first[1] - third[1]) - (second[0] - first[0])) <= 1
    assert chart.alt == "three patches"
