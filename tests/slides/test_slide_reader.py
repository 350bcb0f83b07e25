"""Files are opened, and their levels, microns per pixel and regions read, as they were written."""

from pathlib import Path

import numpy as np
import pytest
from painted_slides import places, write_dicom, write_slide

from pcam_ssl.errors import UserError
from pcam_ssl.slides.pyramid import view_at
from pcam_ssl.slides.reader import open_slide, slide_name

pytest.importorskip("openslide", reason="OpenSlide is not installed (extra: slides)")
tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed (extra: slides)")
LEVELS = [places(1024, 512), places(512, 256, 2), places(128, 64, 8)]


@pytest.fixture(params=["plain", "ome", "ome-planar", "dicom"])
def slide(request, tmp_path):
    """An open slide with levels of 1, 2 and 8 um/px."""
    levels = LEVELS
    if request.param == "dicom":
        pytest.importorskip("pydicom", reason="pydicom is not installed (extra: dev)")
        return open_slide(write_dicom(tmp_path / "dicom", levels))
    if request.param == "ome-planar":
        path = tmp_path / "a.ome.tif"
        with tifffile.TiffWriter(path, ome=True) as file:
            for number, pixels in enumerate(levels):
                told = {
                    "axes": "CYX",
                    "PhysicalSizeX": 1000,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 1000,
                    "PhysicalSizeYUnit": "nm",
                }
                extra = {"subifds": 2, "metadata": told} if not number else {"subfiletype": 1}
                shape = np.ascontiguousarray(pixels.transpose(2, 0, 1))
                file.write(shape, tile=(64, 64), photometric="rgb", planarconfig="separate", compression="lzw", **extra)
        return open_slide(path)
    return open_slide(write_slide(tmp_path / f"a.{request.param}.tif", levels, ome=request.param == "ome"))


def test_levels_and_microns_are_those_written(slide):
    assert [(each.width, each.height, each.downsample) for each in slide.levels] == [(1024, 512, 1), (512, 256, 2), (128, 64, 8)]
    assert slide.mpp == pytest.approx(1.0)
    vendors = {"a.plain.tif": "generic-tiff", "a.ome.tif": "ome-tiff", "dicom": "dicom"}
    assert slide.vendor == vendors[slide.path.name]


def test_a_region_holds_the_pixels_of_its_level(slide):
    assert np.array_equal(slide.read(0, 130, 70, 150, 90), LEVELS[0][70:160, 130:280])
    assert np.array_equal(slide.read(1, 130, 70, 150, 90), LEVELS[1][35:125, 65:215])
    assert np.array_equal(slide.read(2, 640, 320, 20, 10), LEVELS[2][40:50, 80:100])


def test_beyond_the_slide_it_is_white(slide):
    region = slide.read(0, 1000, 500, 64, 32)
    assert np.array_equal(region[:12, :24], LEVELS[0][500:, 1000:])
    assert (region[12:] == 255).all() and (region[:, 24:] == 255).all()


@pytest.mark.parametrize(
    ("wanted", "level", "ratio"), [(1, 0, 1), (1.009, 0, 1), (1.02, 0, 1.02), (1.985, 1, 1), (5, 1, 2.5), (40, 2, 5)]
)
def test_the_coarsest_level_that_is_fine_enough_is_chosen(slide, wanted, level, ratio):
    view = view_at(slide, wanted, 1.0)
    assert (view.level, view.ratio) == (level, pytest.approx(ratio))
    assert view.mpp == pytest.approx(wanted if ratio > 1 else [1, 2, 8][level])
    assert view.step == pytest.approx(view.mpp)


def test_a_slide_coarser_than_wanted_is_refused(slide):
    with pytest.raises(UserError, match=r"finest level has 1 um/px, coarser than --mpp 0.97; give --mpp 1$"):
        view_at(slide, 0.97, 1.0)


def test_resampling_moves_nothing(tmp_path):
    """A ramp in x and y stays the same ramp: pixel i covers (i to i + 1) * 1.6 px of the slide."""
    y, x = np.mgrid[:400, :800]
    ramp = np.stack([x / 4, y / 2, np.full(x.shape, 128)], axis=-1)
    slide = open_slide(write_slide(tmp_path / "ramp.tif", [np.rint(ramp).astype(np.uint8)]))
    view = view_at(slide, 1.6, 1.0)
    assert (view.width, view.height) == (500, 250)
    region = view.read(100, 30, 200, 150).astype(float)
    column, row = (np.arange(100, 300) + 0.5) * 1.6 - 0.5, (np.arange(30, 180) + 0.5) * 1.6 - 0.5
    assert np.abs(region[..., 0] - column / 4).max() <= 1.01
    assert np.abs(region[..., 1] - row[:, None] / 2).max() <= 1.01


def test_resampling_averages_what_is_too_fine_to_show(tmp_path):
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::2] = 200
    slide = open_slide(write_slide(tmp_path / "lines.tif", [lines]))
    assert np.abs(view_at(slide, 4, 1.0).read(10, 10, 30, 30).astype(int) - 100).max() <= 3


def test_a_resampled_pixel_is_the_same_in_every_region(slide):
    view = view_at(slide, 1.7, 1.0)
    whole = view.read(0, 0, view.width, view.height).astype(int)
    for x, y, width, height in ((0, 0, 40, 200), (37, 101, 300, 50), (view.width - 64, view.height - 64, 64, 64)):
        part = view.read(x, y, width, height)
        assert np.abs(whole[y : y + height, x : x + width] - part).max() <= 1


def test_what_lies_beyond_the_edge_is_not_mixed_in(tmp_path):
    slide = open_slide(write_slide(tmp_path / "a.tif", [np.full((300, 400, 3), (90, 60, 120), np.uint8)]))
    view = view_at(slide, 1.7, 1.0)
    for x, y in ((0, 0), (view.width - 40, view.height - 40)):
        assert np.array_equal(view.read(x, y, 40, 40), np.full((40, 40, 3), (90, 60, 120)))


def test_names_are_stems():
    assert [slide_name(Path(each)) for each in ("a/b.svs", "b.ome.tif", "b.c.ome.tiff")] == ["b", "b", "b.c"]


def test_the_real_slide_is_read(shared):
    slide = open_slide(shared / "wsi" / "CMU-1-Small-Region.svs")
    assert (slide.vendor, slide.width, slide.height, slide.mpp) == ("aperio", 2220, 2967, 0.499)
    assert view_at(slide, 0.97, slide.mpp).step == pytest.approx(0.97 / 0.499)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "not a slide that can be read, or cut short; name an SVS"),
        (b"", "not a slide that can be read, or cut short; name an SVS"),
        (b"II*\0\x08\0\0\0", "not a slide that can be read, or cut short; name an SVS|cannot be opened"),
    ],
)
def test_what_is_no_slide_is_refused(tmp_path, content, said):
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        open_slide(tmp_path / "a.svs")
    assert caught.value.where == str(tmp_path / "a.svs") and caught.value.next


def test_a_folder_without_dicom_files_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a folder without .dcm files; name the slides in it"):
        open_slide(tmp_path)


def test_fluorescence_is_refused(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.zeros((4, 128, 128), np.uint16),
        tile=(64, 64),
        metadata={"axes": "CYX"},
        photometric="minisblack",
    )
    with pytest.raises(UserError, match=r"holds uint16 .*not 8-bit RGB"):
        open_slide(tmp_path / "a.ome.tif")


def test_pixels_that_are_not_square_are_refused(tmp_path):
    options = {"tile": (64, 64), "photometric": "rgb", "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", LEVELS[2], resolution=(10000, 5000), **options)
    with pytest.raises(UserError, match=r"not square \(1 x 2 um\)"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize(("ome", "compression"), [(False, None), (False, "jpeg"), (True, None), (True, "jpeg"), (True, "jpeg2000")])
def test_a_file_cut_short_is_refused_when_its_end_is_read(tmp_path, ome, compression):
    """It ends inside the last tile but one."""
    path = write_slide(tmp_path / "a.tif", [LEVELS[0]], ome=ome, compression=compression)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        end = page.dataoffsets[-2] + page.databytecounts[-2] * 3 // 4
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(UserError, match=r"cut short: copy it again"):
        open_slide(path).read(0, 896, 448, 64, 64)
