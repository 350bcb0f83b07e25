"""The page of a heat map in a real browser: slider, click and buttons, without sideways scrolling, and without scripts."""

import json
import re
import subprocess

import numpy as np
import pytest
from drawn_slides import drawn
from PIL import Image
from skips import skip_pages
from written_runs import CHROMIUM, HEADLESS

from pcam_ssl.heatmap.outputs import heat_page

pytestmark = pytest.mark.processes
FRAME = """<iframe src="{uri}" {sandbox} style="border:0;width:{width_px}px;height:900px"></iframe><pre></pre><script>
onload = () => {{
  const frame = document.querySelector("iframe"), page = frame.contentDocument, told = {{}};
  const text = (id) => page.getElementById(id).innerText, seen = (id) => page.getElementById(id).getBoundingClientRect();
  {acts}
  document.querySelector("pre").textContent = JSON.stringify(told);
}}</script>"""
CLICK = """
  const click = (x, y) => {
    const box = seen("slide"), place = {clientX: box.left + 1 + x * (box.width - 2), clientY: box.top + 1 + y * (box.height - 2), bubbles: true};
    page.getElementById("slide").dispatchEvent(new frame.contentWindow.MouseEvent("click", place));
  };
  const colour = () => [...page.getElementById("patch").getContext("2d").getImageData(8, 8, 1, 1).data].slice(0, 3);
"""


@pytest.fixture
def acted(tmp_path, request):
    """acted(page, acts, width_px): what the script `acts` writes into `told` after it worked on the page in a frame."""
    if CHROMIUM is None:
        skip_pages(request.config, "chromium is not installed")

    def acted(page: str, acts: str, width_px: int = 1000, sandbox: str = "") -> dict:
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        frame = tmp_path / "frame.html"
        uri = (tmp_path / "page.html").as_uri()
        frame.write_text(FRAME.format(uri=uri, sandbox=sandbox, width_px=width_px, acts=acts))
        words = [CHROMIUM, *HEADLESS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frame.as_uri()]
        shown = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120)
        return json.loads(re.search(r"<pre>(.*?)</pre>", shown.stdout)[1])

    return acted


@pytest.fixture
def slide():
    """Probs 0.25, 0.75 above 0.5 and 0.125 on a slide of 400 x 400 px; each patch has a colour of its own, by its row."""
    made = drawn([0.25, 0.75, 0.5, 0.125], mpp=0.5, tiled=True, thumbnail_px=10.0)

    def pixels(rows):
        return np.full((len(rows), 32, 32, 3), 0, np.uint8) + (60 * np.asarray(rows, np.uint8))[:, None, None, None]

    return made.__class__(**{**made.__dict__, "pixels": pixels})


GLASS = np.asarray(Image.new("RGB", (40, 40), "white"))


def test_the_slider_sets_the_opacity(acted, slide):
    acts = """
      const shown = () => page.defaultView.getComputedStyle(page.getElementById("cells")).opacity, slider = page.getElementById("opacity");
      told.first = shown(); slider.value = 80; slider.dispatchEvent(new frame.contentWindow.Event("input")); told.then = shown(); told.said = text("percent");"""
    assert acted(heat_page(slide, GLASS), acts) == {"first": "0.5", "then": "0.8", "said": "80 %"}


def test_a_click_shows_the_patch_of_the_place(acted, slide):
    """The slide is 400 px wide; the patch of prob 0.25 covers x 100 to 132, y 40 to 72, and has row 0; that of 0.5 below it row 2."""
    acts = (
        CLICK
        + """
      told.first = text("found"); told.first_colour = colour();
      click(110 / 400, 50 / 400); told.above = text("found"); told.above_colour = colour();
      click(131 / 400, 103 / 400); told.below = text("found"); told.below_colour = colour();
      click(300 / 400, 300 / 400); told.nowhere = text("found"); told.mark = page.getElementById("mark").hidden;"""
    )
    told = acted(heat_page(slide, GLASS), acts)
    assert "prob 0.750" in told["first"] and "number 1 of 4" in told["first"]
    assert "prob 0.250" in told["above"] and "x 100, y 40 (px of level 0)" in told["above"] and "label normal" in told["above"]
    assert "0.05 mm from the left, 0.02 mm from the top" in told["above"]
    assert "prob 0.500" in told["below"] and "x 100, y 72" in told["below"]
    assert (told["nowhere"], told["mark"]) == ("no patch here", True)
    for name, row in (("first", 1), ("above", 0), ("below", 2)):
        assert told[f"{name}_colour"] == pytest.approx([60 * row] * 3, abs=4)


def test_a_click_shows_the_patches_around_the_place(acted, slide):
    """Around the patch of prob 0.25 (row 0) lie 0.75 (row 1) to its right, 0.5 (row 2) below it and 0.125 between them."""
    acts = (
        CLICK
        + """
      click(110 / 400, 50 / 400);
      const grey = (column, row) => [...page.getElementById("around").getContext("2d").getImageData(32 * column + 8, 32 * row + 8, 1, 1).data];
      told.said = text("found"); told.right = grey(2, 1); told.below = grey(1, 2); told.between = grey(2, 2); told.left = grey(0, 1);
      click(300 / 400, 300 / 400); told.nowhere = page.getElementById("around").hidden;"""
    )
    told = acted(heat_page(slide, GLASS), acts)
    assert "around it 3 patches, mean prob 0.458" in told["said"]
    for name, row in (("right", 1), ("below", 2), ("between", 3)):
        assert told[name][:3] == pytest.approx([60 * row] * 3, abs=4), name
    assert told["left"] == [0, 0, 0, 0] and told["nowhere"]


def test_the_mark_and_the_map_lie_on_the_place(acted, slide):
    acts = (
        CLICK
        + """
      click(110 / 400, 50 / 400);
      const whole = seen("slide"), mark = seen("mark"), cells = seen("cells"), part = (x) => Math.round(400 * x / (whole.width - 2));
      told.mark = [part(mark.left - whole.left - 1), part(mark.top - whole.top - 1)];
      told.cells = [part(cells.left - whole.left - 1), part(cells.top - whole.top - 1), part(cells.width), part(cells.height)];"""
    )
    assert acted(heat_page(slide, GLASS), acts) == {"mark": [100, 40], "cells": [100, 40, 64, 64]}


def test_the_buttons_go_through_the_patches_by_prob(acted, slide):
    acts = """
      const less = page.getElementById("less"), probs = [], prob = () => probs.push(/prob ([0-9.]+)/.exec(text("found"))[1]);
      prob(); for (let n = 0; n < 3; n++) { less.click(); prob(); } told.last = less.disabled; page.getElementById("more").click(); prob(); told.probs = probs;"""
    assert acted(heat_page(slide, GLASS), acts) == {"last": True, "probs": ["0.750", "0.500", "0.250", "0.125", "0.250"]}


@pytest.mark.parametrize("width_px", [400, 1600])
@pytest.mark.parametrize("known", [True, False])
def test_the_page_fits_its_width(acted, width_px, known):
    slide = drawn([0.2, 0.9] * 8, across=4, name="<b>a-very-long-name-of-a-slide-</b>" * 4, thumbnail_px=10.0)
    acts = "told.over = page.documentElement.scrollWidth - page.documentElement.clientWidth; told.wide = seen('slide').width; told.live = page.documentElement.className;"
    told = acted(heat_page(slide, GLASS if known else None), acts, width_px)
    assert (told["over"], told["live"]) == (0, "live") and told["wide"] >= 240


def test_without_scripts_it_is_a_picture(acted, slide):
    """A sandbox that allows the same origin, but no scripts."""
    acts = """const shown = (what) => page.querySelector(what).getBoundingClientRect().height > 0;
      told.cells = shown("#cells"); told.slider = shown("#opacity"); told.button = shown("#more"); told.note = shown(".dead-only"); told.sheet = shown("#sheet");"""
    told = acted(heat_page(slide, GLASS), acts, sandbox='sandbox="allow-same-origin"')
    assert told == {"cells": True, "slider": False, "button": False, "note": True, "sheet": False}
