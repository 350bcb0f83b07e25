"""Whole slides become a dataset: pixels, places, labels, order, what is kept to look at, and going on after a kill."""

import errno
import json
import signal
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from painted_slides import GLASS, on_glass, places, write_slide
from PIL import Image

import pcam_ssl as pcam
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.images import measure
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError
from pcam_ssl.slides import tiling

pytest.importorskip("openslide", reason="OpenSlide is not installed (extra: slides)")
FINE, COARSE = places(1024, 512), places(512, 256, 2)
TISSUE = on_glass(FINE, 256, 128, 768, 384)
"""512 x 256 px of tissue: 16 x 8 tiles of 32 px."""
OPTIONS = {"size": 32, "mpp": 1.0}


@pytest.fixture
def slides(tmp_path):
    """Three slides of 1 um/px: a with 128 tiles of tissue, b all tissue with two levels, c with 8 x 4 tiles."""
    levels = {"a": [TISSUE], "b": [FINE, COARSE], "c": [on_glass(FINE, 0, 0, 256, 128)]}
    return [write_slide(tmp_path / f"{name}.tif", each) for name, each in levels.items()]


def test_every_tile_holds_the_pixels_of_its_place(slides, tmp_path):
    made = pcam.tile(slides[:2], tmp_path / "set", **OPTIONS)
    counts = made.patches.groupby("wsi").size().to_dict()
    assert counts == {"a": 128, "b": 512}
    for wsi, pixels in (("a", TISSUE), ("b", FINE)):
        for each in made.patches[made.patches.wsi == wsi].itertuples():
            assert np.array_equal(made.pixels[each.row], pixels[each.y : each.y + 32, each.x : each.x + 32])
            assert each.id == f"{wsi}_x{each.x}_y{each.y}"
    inside = made.patches[made.patches.wsi == "a"]
    assert (inside.x.min(), inside.x.max(), inside.y.min(), inside.y.max()) == (256, 736, 128, 352)


def test_places_are_px_of_level_0_whatever_level_is_read(slides, tmp_path):
    made = pcam.tile(slides[1], tmp_path / "set", size=32, mpp=2.0)
    side = pd.read_parquet(tmp_path / "set/slides/tiles.parquet")
    assert set(side.level) == {1} and side.mpp.to_numpy() == pytest.approx(2.0) and len(made) == 16 * 8
    for each in made.patches.itertuples():
        assert np.array_equal(made.pixels[each.row], COARSE[each.y // 2 : each.y // 2 + 32, each.x // 2 : each.x // 2 + 32])


def test_only_whole_tiles_are_cut_and_stride_sets_their_distance(slides, tmp_path):
    for stride, columns, rows in ((40, 25, 13), (100, 10, 5), (16, 63, 31)):
        patches = pcam.tile(slides[1], tmp_path / f"set{stride}", stride=stride, **OPTIONS).patches
        assert (patches.x.unique().tolist(), patches.y.unique().tolist()) == (
            [stride * column for column in range(columns)],
            [stride * row for row in range(rows)],
        )


def test_resampled_tiles_lie_where_they_say(slides, tmp_path):
    """At 1.6 um/px tile k begins at 51.2 k px of level 0; its mean colour is that of the place, within rounding."""
    made = pcam.tile(slides[1], tmp_path / "set", size=32, mpp=1.6)
    assert made.patches.x.unique().tolist() == [round(51.2 * k) for k in range(20)]
    for each in made.patches.iloc[::7].itertuples():
        whole = FINE[each.y : each.y + 51, each.x : each.x + 51].astype(float)
        assert np.abs(made.pixels[each.row].mean(axis=(0, 1)) - whole.mean(axis=(0, 1))).max() < 2


def test_a_tile_counts_with_half_of_it_tissue(tmp_path):
    """The tissue ends 16 px, one mask pixel's multiple, into a tile: half of it."""
    slide = write_slide(tmp_path / "a.tif", [on_glass(FINE, 0, 0, 528, 512)])
    columns = [
        pcam.tile(slide, tmp_path / f"set{tissue}", tissue=tissue, **OPTIONS).patches.x.max() // 32 + 1 for tissue in (0.3, 0.7)
    ]
    assert columns == [17, 16]


def test_order_does_not_depend_on_the_workers(slides, tmp_path):
    one, three = (pcam.tile(slides, tmp_path / f"set{n}", workers=n, **OPTIONS) for n in (1, 3))
    assert one.digest == three.digest
    assert one.patches.equals(three.patches)
    assert one.patches.wsi.unique().tolist() == ["a", "b", "c"]
    for _, part in one.patches.groupby("wsi"):
        assert part[["y", "x"]].apply(tuple, axis=1).is_monotonic_increasing


def test_small_regions_give_the_same_tiles_as_large_ones(slides, tmp_path, monkeypatch):
    large = pcam.tile(slides, tmp_path / "large", **OPTIONS)
    monkeypatch.setattr("pcam_ssl.slides.pyramid.SOURCE_PX", 100)
    assert pcam.tile(slides, tmp_path / "small", **OPTIONS).digest == large.digest


def test_it_does_not_matter_how_many_tiles_are_written_at_once(slides, tmp_path, monkeypatch):
    """On a ragged outline, so that regions hold tiles that do not follow one another."""
    ragged = FINE.copy()
    for step in range(8):
        ragged[64 * step : 64 * step + 64, : 96 * (step % 3)] = GLASS
    slides = [write_slide(tmp_path / "d.tif", [ragged]), *slides]
    whole = pcam.tile(slides, tmp_path / "whole", **OPTIONS)
    rows = whole.patches[whole.patches.wsi == "d"]
    assert 0 < len(rows) < 512 and rows.y.is_monotonic_increasing
    for each in rows.itertuples():
        assert np.array_equal(whole.pixels[each.row], ragged[each.y : each.y + 32, each.x : each.x + 32])
    monkeypatch.setattr("pcam_ssl.slides.pyramid.SOURCE_PX", 100)
    monkeypatch.setattr("pcam_ssl.slides.parts.TOGETHER", 50)
    monkeypatch.setattr("pcam_ssl.slides.parts.BATCH_BYTES", 20 * 32 * 32 * 3)
    made = pcam.tile(slides, tmp_path / "small", **OPTIONS)
    assert made.digest == whole.digest and made.patches.equals(whole.patches)
    assert (tmp_path / "small/slides/tiles.parquet").read_bytes() == (tmp_path / "whole/slides/tiles.parquet").read_bytes()


def test_what_goes_wrong_behind_the_cutting_ends_the_command(slides, tmp_path, monkeypatch):
    """Slide a is cut to the end and kept; the dataset was written only in part and is not."""
    append = DatasetWriter.append

    def fills(self, pixels, *rest):
        if self._rows:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, pixels, *rest)

    monkeypatch.setattr(DatasetWriter, "append", fills)
    with pytest.raises(UserError, match=r"set\.part: the disk is full .*finished slides are kept there"):
        pcam.tile(slides, tmp_path / "set", workers=1, **OPTIONS)
    assert (tmp_path / "set.part/a.json").is_file() and not (tmp_path / "set").exists()
    monkeypatch.undo()
    assert len(pcam.tile(slides, tmp_path / "set", **OPTIONS)) == 672


def test_statistics_are_those_of_the_pixels(slides, tmp_path):
    made = pcam.tile(slides[0], tmp_path / "set", **OPTIONS)
    for name, values in measure(np.asarray(made.pixels)).items():
        assert made.patches[name].tolist() == list(values), name


def annotate(path, *rings, name="Tumor"):
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": name}},
        }
        for ring in rings
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def test_the_centre_decides_the_label(tmp_path):
    """Tiles of 96 px; centres are 32 to 64. The outline covers a quarter of the first centre, touches the second, fills the third."""
    slide = write_slide(tmp_path / "a.tif", [FINE])
    annotate(tmp_path / "a.geojson", box(0, 0, 48, 48), box(96, 0, 128, 96), box(192, 0, 288, 96))
    made = pcam.tile(slide, tmp_path / "set", mpp=1.0, annotations=tmp_path / "a.geojson")
    side = pd.read_parquet(tmp_path / "set/slides/tiles.parquet").set_index("id").tumor_share
    assert side[["a_x0_y0", "a_x96_y0", "a_x192_y0", "a_x288_y0"]].tolist() == pytest.approx([0.25, 0, 1, 0])
    labels = made.patches.set_index("id").label
    assert labels[["a_x0_y0", "a_x96_y0", "a_x192_y0", "a_x288_y0"]].tolist() == [1, 0, 1, 0]
    assert labels.sum() == 2 and set(made.patches.split) == {"train"}


def test_the_centre_is_in_px_of_the_tiles(tmp_path):
    """At 2 um/px the centre of the first tile is 64 to 128 px of level 0."""
    slide = write_slide(tmp_path / "a.tif", [FINE, COARSE])
    annotate(tmp_path / "a.geojson", box(120, 0, 130, 200))
    made = pcam.tile(slide, tmp_path / "set", mpp=2.0, annotations=tmp_path)
    side = pd.read_parquet(tmp_path / "set/slides/tiles.parquet")
    assert side.tumor_share[0] == pytest.approx(8 / 64) and made.patches.label.tolist() == [1] + [0] * (len(made) - 1)


def test_slides_without_annotations_are_test_and_an_empty_file_means_normal(slides, tmp_path):
    (tmp_path / "marks").mkdir()
    annotate(tmp_path / "marks/a.geojson", box(256, 128, 300, 200))
    annotate(tmp_path / "marks/b.geojson")
    made = pcam.tile(slides, tmp_path / "set", annotations=tmp_path / "marks", **OPTIONS)
    assert made.patches.groupby("wsi").split.unique().map(list).to_dict() == {"a": ["train"], "b": ["train"], "c": ["test"]}
    labels = made.patches.groupby("wsi").label
    assert labels.sum().to_dict() == {"a": 2 * 2, "b": 0, "c": 0} and labels.count().to_dict() == {"a": 128, "b": 512, "c": 0}
    assert made.manifest["notes"]["slides_without_annotations"] == 1


def test_what_is_kept_of_a_slide_tells_where_its_tiles_lie(slides, tmp_path):
    pcam.tile(slides[0], tmp_path / "set", size=32, mpp=1.6)
    told = json.loads((tmp_path / "set/slides/a.json").read_text())
    assert (told["width_px"], told["height_px"], told["mpp"], told["level"]) == (1024, 512, pytest.approx(1), 0)
    assert told["tile"] == {"size_px": 32, "stride_px": 32, "mpp": 1.6, "level0_px": pytest.approx(51.2)}
    assert told["slide"] == str(slides[0]) and told["thumbnail_mpp"] == 8
    with Image.open(tmp_path / "set/slides/a-thumbnail.jpg") as plain, Image.open(tmp_path / "set/slides/a.png") as outlined:
        assert plain.size == outlined.size == (128, 64)
        assert outlined.getpixel((60, 16)) == (0, 160, 0) != outlined.getpixel((60, 30))


def test_the_real_slide(shared, tmp_path):
    made = pcam.tile(shared / "wsi/CMU-1-Small-Region.svs", tmp_path / "set")
    assert 45 <= len(made) <= 75
    slide = json.loads((tmp_path / "set/slides/CMU-1-Small-Region.json").read_text())
    assert (made.patches.x + slide["tile"]["level0_px"] <= 2221).all() and (made.patches.y + 186 <= 2967).all()
    assert made.patches.brightness.between(0.3, 0.92).all()


def test_slides_that_are_finished_are_not_read_again(slides, tmp_path, monkeypatch):
    whole = pcam.tile(slides, tmp_path / "whole", **OPTIONS)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiling, "write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            pcam.tile(slides[:2], tmp_path / "set", **OPTIONS)
    read = []
    opened = tiling.open_slide
    monkeypatch.setattr(tiling, "open_slide", lambda path: read.append(path.name) or opened(path))
    made = pcam.tile(slides, tmp_path / "set", **OPTIONS)
    assert read == ["c.tif"]
    assert made.digest == whole.digest and not (tmp_path / "set.part").exists()


@pytest.mark.parametrize("change", [{"tissue": 0.6}, {"stride": 16}, {"assume_mpp": 1.001}, {"annotations": "b.geojson"}])
def test_slides_cut_otherwise_are_cut_again(slides, tmp_path, monkeypatch, change):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tiling, "write_table", stop)
        with pytest.raises(KeyboardInterrupt):
            pcam.tile(slides, tmp_path / "set", **OPTIONS)
    annotate(tmp_path / "b.geojson", box(0, 0, 100, 100))
    change = {name: tmp_path / value if name == "annotations" else value for name, value in change.items()}
    read = []
    opened = tiling.open_slide
    monkeypatch.setattr(tiling, "open_slide", lambda path: read.append(path.name) or opened(path))
    made = pcam.tile(slides, tmp_path / "set", workers=1, **OPTIONS, **change)
    assert read == (["b.tif"] if "annotations" in change else ["a.tif", "b.tif", "c.tif"])
    assert made.digest == pcam.tile(slides, tmp_path / "anew", **OPTIONS, **change).digest


def test_a_killed_command_goes_on_with_the_next_slide(tmp_path, start):
    slides = [write_slide(tmp_path / f"{name}.tif", [np.tile(FINE, (2, 2, 1))], tile=(256, 256)) for name in "abc"]
    words = ["data", "tile", *slides, tmp_path / "set", "--size", 32, "--mpp", 1, "--stride", 24, "--workers", 1]
    running = start(*words)
    finished = tmp_path / "set.part" / "a.json"
    deadline = time.monotonic() + 100
    while not finished.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.signal(signal.SIGKILL)
    running.process.join()
    assert finished.is_file() and not (tmp_path / "set").exists() and running.process.exitcode == -signal.SIGKILL
    files = [tmp_path / "set.part" / name for name in ("a.json", "a.pixels")]
    before = tuple(file.stat().st_mtime_ns for file in files)
    second, seen = start(*words), set()
    while second.process.is_alive():
        with suppress(FileNotFoundError):  # the folder is removed in the end
            seen.add(tuple(file.stat().st_mtime_ns for file in files))
        time.sleep(0.01)
    assert seen == {before}
    assert second.wait().code == 0
    assert open_dataset(tmp_path / "set").digest == pcam.tile(slides, tmp_path / "anew", stride=24, **OPTIONS).digest
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["anew", "set"]


def test_two_commands_do_not_write_one_dataset(slides, tmp_path, monkeypatch):
    from filelock import FileLock

    (tmp_path / "set.part").mkdir()
    with FileLock(tmp_path / "set.part/.lock"), pytest.raises(UserError, match=r"set.part: another command works there; wait"):
        pcam.tile(slides, tmp_path / "set", **OPTIONS)


def test_the_command_says_what_came(slides, tmp_path, command):
    annotate(tmp_path / "a.geojson", box(256, 128, 300, 200), name="DCIS")
    words = [
        "data",
        "tile",
        *slides,
        tmp_path / "set",
        "--size",
        32,
        "--mpp",
        1.0,
        "--classes",
        "DCIS=1",
        "--annotations",
        tmp_path,
    ]
    done = command(*words)
    assert (done.code, done.problems) == (0, [])
    assert f"{tmp_path}/set: 672 patches of 32 px, 3 slides" in done.out
    assert "train 128 (4 tumor, 124 normal); test 544 (544 unlabelled)" in done.out
