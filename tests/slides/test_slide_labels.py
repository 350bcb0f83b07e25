"""Labels from annotation files, compared with areas computed by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.slides.annotation_files import find_annotations
from pcam_ssl.slides.annotations import parse_classes, share_within, tumor_area

pytest.importorskip("shapely", reason="shapely is not installed (extra: slides)")
NAN_POINT = '<Coordinate Order="0" X="5" Y="nan"/>'


@pytest.fixture
def slide(tmp_path):
    return SimpleNamespace(path=tmp_path / "a.svs", name="a", width=1000, height=800, offset=(0, 0))


def ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(rings, name="Tumor", kind="Polygon"):
    properties = {"objectType": "annotation"} | ({} if name is None else {"classification": {"name": name, "color": [200, 0, 0]}})
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": rings}, "properties": properties}


@pytest.fixture
def geojson(tmp_path):
    """geojson(feature, ...): a file as QuPath exports it."""

    def write(*features, name="a.geojson"):
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
        return tmp_path / name

    return write


@pytest.fixture
def asap(tmp_path):
    """asap((group, points), ...): a file as ASAP writes it."""

    def write(*shapes, name="a.xml"):
        annotations = "".join(
            f'<Annotation Name="A" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
            + "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}" />' for order, (x, y) in enumerate(points))
            + "</Coordinates></Annotation>"
            for group, points in shapes
        )
        text = f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{annotations}</Annotations><AnnotationGroups /></ASAP_Annotations>'
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_polygons_with_holes_and_several_parts(geojson, slide):
    holed = feature([ring(0, 0, 100, 100), ring(20, 20, 40, 40)])
    parts = feature([[ring(200, 0, 210, 10)], [ring(300, 0, 320, 10), ring(305, 2, 310, 4)]], kind="MultiPolygon")
    assert tumor_area(geojson(holed, parts), slide, {}).area == 100 * 100 - 400 + 100 + 200 - 10


def test_a_single_feature_and_a_list_are_read_too(tmp_path, slide):
    for content in (feature([ring(0, 0, 10, 10)]), [feature([ring(0, 0, 10, 10)])]):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert tumor_area(tmp_path / "a.json", slide, {}).area == 100


def test_a_byte_order_mark_is_no_damage(tmp_path, slide):
    (tmp_path / "a.json").write_text(json.dumps(feature([ring(0, 0, 10, 10)])), encoding="utf-8-sig")
    assert tumor_area(tmp_path / "a.json", slide, {}).area == 100


def test_groups_of_camelyon16(asap, slide):
    """_0, _1 and Tumor are tumor; _2 and Exclusion are cut out of it."""
    shapes = [("_2", ring(10, 10, 20, 20)[:4]), ("_0", ring(0, 0, 100, 100)[:4]), ("_1", ring(200, 0, 210, 10)[:4])]
    shapes += [("Tumor", ring(300, 0, 320, 20)[:4]), ("Exclusion", ring(305, 5, 310, 10)[:4])]
    assert tumor_area(asap(*shapes), slide, {}).area == 100 * 100 - 100 + 100 + 400 - 25


def test_coordinates_are_taken_in_their_order(tmp_path, slide):
    points = {2: (10, 10), 10: (0, 5), 0: (0, 0), 1: (10, 0), 3: (0, 10)}
    inner = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in points.items())
    (tmp_path / "a.xml").write_text(
        f'<ASAP_Annotations><Annotation PartOfGroup="Tumor"><Coordinates>{inner}</Coordinates></Annotation></ASAP_Annotations>'
    )
    assert tumor_area(tmp_path / "a.xml", slide, {}).area == 100


def test_the_smaller_outline_lies_on_top(geojson, slide):
    file = geojson(
        feature([ring(40, 40, 60, 60)], "Stroma"),
        feature([ring(0, 0, 500, 500)], "Stroma"),
        feature([ring(0, 0, 100, 100)]),
        feature([ring(45, 45, 50, 50)], "Nest"),
    )
    assert tumor_area(file, slide, {"Stroma": 0, "Nest": 1}).area == 100 * 100 - 400 + 25


def test_qupath_counts_from_the_scanned_area_and_asap_from_the_slide(geojson, asap, slide):
    slide.offset = (300, 100)
    assert tumor_area(geojson(feature([ring(0, 0, 10, 10)])), slide, {}).bounds == (300, 100, 310, 110)
    assert tumor_area(asap(("Tumor", ring(0, 0, 10, 10)[:4])), slide, {}).bounds == (0, 0, 10, 10)


def test_outlines_that_cross_themselves_are_repaired_with_a_warning(geojson, slide, capsys):
    bow = feature([[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]])
    assert tumor_area(geojson(bow), slide, {}).area == 50
    assert "1 outlines cross themselves" in capsys.readouterr().err


@pytest.mark.parametrize("without", [feature([5, 5], kind="Point"), feature([[]]), feature([[[0, 0], [9, 9]]])], ids=str)
def test_what_has_no_area_is_left_out_with_a_warning(geojson, slide, capsys, without):
    file = geojson(without, feature([ring(0, 0, 10, 10)]))
    assert tumor_area(file, slide, {}).area == 100
    assert "1 points and lines have no area" in capsys.readouterr().err


def test_a_file_without_outlines_says_all_is_normal(geojson, slide):
    assert tumor_area(geojson(), slide, {}).is_empty
    assert share_within(tumor_area(geojson(), slide, {}), np.array([0.0]), np.array([0.0]), 10).tolist() == [0]


def test_names_of_classes_are_known_in_any_case(geojson, slide):
    names = ("tumor", "TUMOUR", "Carcinoma", "Metastasis", "DCIS")
    shapes = [feature([ring(20 * number, 0, 20 * number + 10, 10)], name) for number, name in enumerate(names)]
    assert tumor_area(geojson(*shapes), slide, {"dcis": 1}).area == 500


def test_unknown_classes_are_refused_with_their_names(geojson, slide):
    file = geojson(feature([ring(0, 0, 9, 9)], "Stroma"), feature([ring(0, 0, 9, 9)], None), feature([ring(0, 0, 9, 9)]))
    with pytest.raises(UserError) as caught:
        tumor_area(file, slide, {})
    assert caught.value.problems == (
        f"{file}: unknown classes Stroma (1), unclassified (1); say which are tumor: --classes 'Stroma=0,unclassified=0'",
    )


@pytest.mark.parametrize("box", [(900, 0, 1100, 10), (0, -100, 10, 10), (2000, 2000, 2010, 2010)])
def test_outlines_outside_the_slide_are_refused(geojson, slide, box):
    file = geojson(feature([ring(0, 0, 9, 9)]), feature([ring(*box)]))
    with pytest.raises(
        UserError, match=r"1 of 2 outlines lie outside a.svs \(1,000 x 800 px\); give the annotations of this slide"
    ):
        tumor_area(file, slide, {})


def test_an_outline_may_leave_the_slide_by_some_px(geojson, slide):
    assert tumor_area(geojson(feature([ring(-5, -5, 1005, 805)])), slide, {}).area == 1010 * 810


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.geojson", "{"),
        ("a.geojson", '{"features": [{"geometry": {"type": "Polygon", "coordinates": 3}}]}'),
        ("a.geojson", '{"features": [{"geometry": null, "properties": {}}]}'),
        ("a.geojson", "[3]"),
        ("a.geojson", '[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [NaN, 0], [9, 9]]]}}]'),
        (
            "a.geojson",
            '[{"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9]], [[1, 1], [1, Infinity], [2, 2]]]}}]',
        ),
        ("a.xml", "<ASAP_Annotations>"),
        ("a.xml", "<html></html>"),
        ("a.xml", '<ASAP_Annotations><Annotation><Coordinate Order="0" X="a" Y="1"/></Annotation></ASAP_Annotations>'),
        ("a.xml", f"<ASAP_Annotations><Annotation>{NAN_POINT * 3}</Annotation></ASAP_Annotations>"),
    ],
)
def test_damaged_files_are_refused(tmp_path, slide, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"cannot be read as (GeoJSON|ASAP XML) \(.+\); export the annotations again") as caught:
        tumor_area(tmp_path / name, slide, {})
    assert caught.value.where == str(tmp_path / name)


def test_shares_are_exact(geojson, slide):
    area = tumor_area(geojson(feature([ring(0, 0, 100, 100), ring(40, 40, 60, 60)])), slide, {})
    left, top = np.array([10.0, 95, 100, 35, 45, 200]), np.array([10.0, 95, 50, 35, 45, 200])
    assert share_within(area, left, top, 10) == pytest.approx([1, 0.25, 0, 0.75, 0, 0])


def test_classes_are_read_from_text():
    assert parse_classes("Tumor=1, Stroma = 0,a=b=1") == {"Tumor": 1, "Stroma": 0, "a=b": 1}


@pytest.mark.parametrize("text", ["Tumor", "Tumor=2", "=1", "Tumor=1,", "Tumor=yes"])
def test_other_text_is_refused(text):
    with pytest.raises(UserError, match=r"^--classes .*is not NAME=0 or NAME=1; write Tumor=1,Stroma=0"):
        parse_classes(text)


def test_files_are_found_by_stem(tmp_path, geojson, asap):
    geojson(name="b.geojson")
    asap(name="a.xml")
    geojson(name="other.json")
    slides = [tmp_path / "a.svs", tmp_path / "b.ome.tif", tmp_path / "c.svs"]
    assert find_annotations(tmp_path, slides) == {"a": tmp_path / "a.xml", "b": tmp_path / "b.geojson"}
    assert find_annotations(tmp_path / "a.xml", slides) == {"a": tmp_path / "a.xml"}


def test_files_that_fit_no_slide_are_refused(tmp_path, geojson, asap):
    slides = [tmp_path / "a.svs"]
    for place, said in (
        (geojson(name="other.json"), r"is of no slide here \(a, ...\); give it the stem of its slide"),
        (tmp_path, "no file has the stem of a slide"),
        (tmp_path / "absent", "no such file or folder"),
        (tmp_path / "a.svs", "not an annotation file"),
    ):
        (tmp_path / "a.svs").write_bytes(b"")
        with pytest.raises(UserError, match=said):
            find_annotations(place, slides)
    asap()
    geojson()
    with pytest.raises(UserError, match=r"a.geojson and a.xml are of one slide; keep one of them"):
        find_annotations(tmp_path, slides)
