"""The files of a heat map: detections as QuPath reads them, overlay, arrays, and a page below 5 MB."""

import errno
import json
import re

import numpy as np
import pytest
from drawn_slides import drawn
from PIL import Image

from pcam_ssl.heatmap import outputs
from pcam_ssl.heatmap.cells import NORMAL, TUMOR, coloured
from pcam_ssl.heatmap.outputs import FILES, detections, heat_page, overlay, write_outputs


@pytest.fixture
def thumbnail(tmp_path):
    """A white thumbnail of 40 x 60 px."""
    Image.new("RGB", (40, 60), "white").save(tmp_path / "t.png")
    return tmp_path / "t.png"


def test_detections_have_the_structure_of_qupath():
    """QuPath 0.4 and later: `objectType`, `classification` with name and colour, `measurements` as an object; closed rings."""
    found = json.loads(json.dumps(detections(drawn([0.25, 0.5], tile_px=64.0))))
    assert found["type"] == "FeatureCollection" and len(found["features"]) == 2
    first, second = found["features"]
    assert first == {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [[[100, 40], [164, 40], [164, 104], [100, 104], [100, 40]]]},
        "properties": {
            "objectType": "detection",
            "classification": {"name": "Normal", "color": list(NORMAL)},
            "measurements": {"prob tumor": 0.25},
        },
    }
    assert second["properties"]["classification"] == {"name": "Tumor", "color": list(TUMOR)}
    assert second["geometry"]["coordinates"][0][0] == [164, 40]


def test_detections_count_from_the_scanned_area():
    (only,) = detections(drawn([0.9], offset=(90, 30)))["features"]
    assert only["geometry"]["coordinates"][0][0] == [10, 10]


def test_the_overlay_lies_where_the_patches_do(thumbnail):
    """A px of the thumbnail is 8 px of the slide: the patch at (100, 40) of 32 px begins at its px 12.5, 5 and ends at 16.5, 9."""
    slide = drawn([1.0], thumbnail=thumbnail, thumbnail_px=8.0)
    pixels = overlay(slide, np.asarray(Image.open(thumbnail)))
    scale = pixels.shape[1] // 40
    marked = np.argwhere((pixels != 255).any(axis=2)) / scale
    assert marked.min(axis=0) == pytest.approx([5, 12.5], abs=0.2) and marked.max(axis=0) == pytest.approx([9, 16.5], abs=0.2)
    np.testing.assert_allclose(pixels[6 * scale, 14 * scale], (np.array(TUMOR) + 255) / 2, atol=1)


def test_without_a_thumbnail_the_overlay_is_the_map():
    slide = drawn([0.0, 1.0])
    assert np.array_equal(overlay(slide, None)[0, ::400], coloured(slide.prob_map)[0])


def test_arrays_say_where_they_lie(tmp_path):
    write_outputs(tmp_path, drawn([0.1, 0.9, 0.4], mpp=0.5, tiled=True))
    values, facts = np.load(tmp_path / "map.npy"), json.loads((tmp_path / "map.json").read_text())
    np.testing.assert_array_equal(values, np.array([[0.1, 0.9], [0.4, np.nan]], np.float32))
    assert (facts["shape"], facts["origin_px"], facts["cell_px"], facts["cell_um"]) == ([2, 2], [100, 40], 32, 16)
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(tmp_path / "map.ome.tif") as file:
        np.testing.assert_array_equal(file.asarray(), values)
        assert 'PhysicalSizeX="16.0"' in file.ome_metadata
    assert {path.name for path in tmp_path.iterdir()} == set(FILES) - {"summary.json"}


def told_by(page: str) -> dict:
    return json.loads(re.search(r'id="told">(.*?)</script>', page, re.DOTALL)[1])


def test_a_large_slide_keeps_its_page_below_5_mb(monkeypatch):
    """Noise is the worst that JPEG can get. Pictures are of the most suspicious patches."""
    rng = np.random.default_rng(1)
    slide = drawn(rng.uniform(size=20_000), across=150)
    page = heat_page(slide, rng.integers(0, 256, (1200, 900, 3), np.uint8))
    told = told_by(page)
    assert len(page.encode()) < 5_000_000
    assert 300 < told["pictures"] <= 1500 and len(told["x"]) == 20_000
    assert told["prob"] == sorted(told["prob"], reverse=True)
    assert f"{told['pictures']:,} most suspicious of 20,000 patches" in page


def test_few_patches_have_larger_pictures():
    assert told_by(heat_page(drawn([0.5] * 10, size_px=96), None))["side"] == 96


def test_names_from_data_run_nothing():
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    page = heat_page(drawn([0.5], name=hostile), None)
    assert "<script>alert" not in page and "<img src=x" not in page
    assert page.count("<script") == 2 and "script-src 'sha256-" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    write_outputs(tmp_path, drawn([0.1]))
    before = (tmp_path / "map.npy").read_bytes()

    def full(file, values):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs.np, "save", full)
    with pytest.raises(OSError) as raised:
        write_outputs(tmp_path, drawn([0.9]))
    assert raised.value.filename.endswith("map.npy")
    assert (tmp_path / "map.npy").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
