"""The page and the pictures of explained patches."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from explanations import INFO, explained
from PIL import Image

from pcam_ssl.errors import UserError
from pcam_ssl.explain.report import explain_page, explained_document, laid_over, panels, picture_name, strip, write_explained

SCRIPT = "<script>alert(1)</script>"


def page_of(*patches) -> str:
    return explain_page(list(patches), Path("runs/m"), INFO)


class Elements(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self, page: str):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def test_a_patch_has_four_pictures_that_say_what_they_show():
    images = Elements(page_of(explained())).all("img")
    assert [image["alt"] for image in images[:4]] == [
        "the patch: prob 0.900",
        "evidence for tumor: 40 % in the centre",
        "centre blurred: prob 0.100",
        "surround blurred: prob 0.900",
    ]


def test_the_centre_is_outlined_in_each_picture():
    outlines = [outline for outline in Elements(page_of(explained())).all("i") if "style" in outline]
    assert [outline["style"] for outline in outlines] == ["--edge: 33.3333%"] * 4


def test_right_and_wrong_calls_look_different():
    looks = [explained_document([explained(label=label)], Path("runs/m"), INFO).body[0].blocks[0].look for label in (1, 0, None)]
    assert looks == ["call good", "call bad", "call"]


def test_the_page_says_how_coarse_the_map_is():
    assert "Grad-CAM of the call on 3 x 3 cells of 32 px, mean of the eight D4 views" in page_of(explained())


def test_neighbours_are_counted_by_label():
    assert "Nearest labelled patches of other slides in the embedding of fold 2: 1 of 2 tumor" in page_of(explained())


def test_text_from_data_is_no_markup():
    page = page_of(explained(id=SCRIPT, wsi=f'"{SCRIPT}'))
    assert Elements(page).all("script") == [] and "&lt;script&gt;alert(1)" in page


def test_the_page_needs_nothing_else():
    page = page_of(explained(), explained(id="other"))
    elements = Elements(page)
    addresses = [value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")]
    assert len(addresses) > 8 and all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?:|url\(|@import", page)


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_the_page_fits_its_width_in_its_colours(measured, tmp_path, width_px, dark, background):
    page = write_explained(tmp_path, [explained(id="a-long-id" * 20, wsi="a-very-long-slide-" * 8)], Path("runs/m"), INFO)
    found = measured(page, width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)


def test_a_patch_with_a_flat_map_stays_grey():
    patch = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    shown = laid_over(patch, np.zeros((3, 3)))
    assert (shown[..., 0] == shown[..., 1]).all() and (shown[..., 1] == shown[..., 2]).all()


def test_colour_lies_where_the_map_is_high():
    cells = np.zeros((3, 3))
    cells[0, 2] = 1
    shown = laid_over(np.full((96, 96, 3), 128, np.uint8), cells).astype(int)
    colourful = np.ptp(shown, axis=2)
    assert colourful[:16, 80:].min() > 50 and colourful[64:, :32].max() == 0


def test_blurred_pictures_are_those_that_were_scored():
    patch = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    (_, whole, _), _, (_, no_centre, _), (_, no_surround, _) = panels(explained(pixels=patch))
    assert np.array_equal(whole, patch)
    assert np.array_equal(no_centre[:32], patch[:32]) and np.array_equal(no_surround[40:50, 40:50], patch[40:50, 40:50])


def test_a_strip_holds_four_panels_and_words():
    image = strip(explained(wsi=None, label=None))
    assert image.size == (1232, 386) and image.mode == "RGB"


@pytest.mark.parametrize("id", ["../../etc/passwd", SCRIPT, "a/b", "", "..", "x" * 300, "é"])
def test_a_hostile_id_makes_a_plain_file_name(id):
    name = picture_name(id)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.png", name) and len(name) < 120


def test_ids_that_differ_have_names_that_differ():
    assert len({picture_name(id) for id in ("a/b", "a_b", "a:b")}) == 3 and picture_name("0a1b") == "0a1b.png"


def test_page_and_pictures_are_written_together(tmp_path):
    page = write_explained(tmp_path / "out", [explained(), explained(id=SCRIPT)], Path("runs/m"), INFO)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(["0a1b.png", picture_name(SCRIPT), "explain.html"])
    assert page.name == "explain.html" and Image.open(tmp_path / "out" / "0a1b.png").format == "PNG"


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--out .*file/deeper: cannot be written \(Not a directory\); name another folder$"):
        write_explained(tmp_path / "file" / "deeper", [explained()], Path("runs/m"), INFO)
