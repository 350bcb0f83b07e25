"""detections.geojson, read by QuPath's rules: what QuPath gets is what the heat map says."""

import json

import numpy as np
import pytest
from drawn_slides import drawn
from qupath_objects import read_objects

from pcam_ssl.heatmap.cells import NORMAL, TUMOR
from pcam_ssl.heatmap.outputs import write_outputs


def test_every_patch_is_a_detection_with_its_class_and_prob(tmp_path):
    probs = np.random.default_rng(0).uniform(size=60)
    probs[:3] = 0, 0.5, 1
    write_outputs(tmp_path, drawn(probs, across=8, name="Präparat 1: <a>"))
    found = read_objects(tmp_path / "detections.geojson")
    assert [each.kind for each in found] == ["detection"] * 60
    assert [each.name for each in found] == ["Tumor" if prob >= 0.5 else "Normal" for prob in probs]
    assert [each.color for each in found] == [TUMOR if prob >= 0.5 else NORMAL for prob in probs]
    assert [list(each.measurements) for each in found] == [["prob tumor"]] * 60
    assert [each.measurements["prob tumor"] for each in found] == pytest.approx(probs.tolist(), abs=1e-6)


@pytest.mark.parametrize(("edge", "offset"), [(32.0, (0, 0)), (186.2, (90, 30)), (372.4949, (0, 41))])
def test_squares_are_px_of_level_0_from_the_corner_of_the_scanned_area(tmp_path, edge, offset):
    """A patch of 96 px at 0.97 um/px covers 186.2 px of a slide of 0.5 um/px."""
    slide = drawn([0.1, 0.9, 0.4, 0.7, 0.2], tile_px=edge, tiled=True, mpp=0.5, offset=offset)
    write_outputs(tmp_path, slide)
    for found, patch in zip(read_objects(tmp_path / "detections.geojson"), slide.patches.itertuples(), strict=True):
        left, top = patch.x - offset[0], patch.y - offset[1]
        assert found.bounds == pytest.approx((left, top, left + edge, top + edge), abs=0.006)


def broken(change):
    """A change of the one feature of a file."""
    return pytest.param(change, id=change.__name__)


def open_ring(feature):
    feature["geometry"]["coordinates"][0].pop()


def no_area(feature):
    feature["geometry"]["coordinates"][0] = [[0, 0], [1, 0], [0, 0], [0, 0]]


def no_object_type(feature):
    del feature["properties"]["objectType"]


def class_without_colour(feature):
    del feature["properties"]["classification"]["color"]


def fractional_colour(feature):
    feature["properties"]["classification"]["color"] = [0.1, 0.2, 0.3]


def two_classes_in_one_name(feature):
    feature["properties"]["classification"]["name"] = "Tumor: Positive"


def measurements_as_an_array(feature):
    feature["properties"]["measurements"] = [{"name": "prob tumor", "value": 0.5}]


def prob_as_text(feature):
    feature["properties"]["measurements"]["prob tumor"] = "0.5"


def undefined_prob(feature):
    feature["properties"]["measurements"]["prob tumor"] = float("nan")


def infinite_corner(feature):
    feature["geometry"]["coordinates"][0][1][0] = float("inf")


def id_that_is_no_uuid(feature):
    feature["id"] = "patch-1"


CHANGES = (
    *(open_ring, no_area, no_object_type, class_without_colour, fractional_colour, two_classes_in_one_name),
    *(measurements_as_an_array, prob_as_text, undefined_prob, infinite_corner, id_that_is_no_uuid),
)


@pytest.mark.parametrize("change", [broken(each) for each in CHANGES])
def test_the_rules_refuse_what_qupath_would_not_read(tmp_path, change):
    path = tmp_path / "detections.geojson"
    write_outputs(tmp_path, drawn([0.9]))
    assert len(read_objects(path)) == 1
    collection = json.loads(path.read_text())
    change(collection["features"][0])
    path.write_text(json.dumps(collection))
    with pytest.raises(ValueError):
        read_objects(path)


def test_a_prob_that_is_not_a_number_is_not_written(tmp_path):
    slide = drawn([0.1, 0.9])
    slide.patches.loc[0, "prob"] = np.nan
    with pytest.raises(ValueError):
        write_outputs(tmp_path, slide)
    assert not (tmp_path / "detections.geojson").exists()
