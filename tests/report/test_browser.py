"""The page in a real browser: nothing sticks out sideways, on a telephone or a wide screen, light or dark."""

import json
import re
import shutil
import subprocess

import pytest

from pcam_ssl.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# The page runs no script, so the page around it measures: a frame can be narrower than a window.
FRAME = """<iframe src="{uri}" style="border:0;width:{width_px}px;height:900px"></iframe><pre></pre><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument, style = page.defaultView.getComputedStyle(page.body);
  const letters = [...page.querySelectorAll("svg.chart text")].map(text => text.getBoundingClientRect().height);
  document.querySelector("pre").textContent = JSON.stringify(
    {{over_px: page.documentElement.scrollWidth - page.documentElement.clientWidth, background: style.backgroundColor, smallest_px: Math.min(...letters)}});
}}</script>"""


@pytest.fixture
def measured(tmp_path):
    """measured(path, width_px, dark): what the browser lays out in a frame of that width."""

    def measured(path, width_px: int, dark: bool) -> dict:
        frame = tmp_path / "frame.html"
        frame.write_text(FRAME.format(uri=path.as_uri(), width_px=width_px))
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--allow-file-access-from-files",
        ]
        options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path / 'profile'}"]
        shown = subprocess.run(
            [CHROMIUM, *options, "--allow-file-access-from-files", "--dump-dom", frame.as_uri()],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return json.loads(re.search(r"<pre>(.*?)</pre>", shown.stdout)[1])

    return measured


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_the_page_fits_its_width_in_its_colours(write_run, measured, width_px, dark, background):
    slides = ("a-very-long-name-of-a-slide-" * 4, *(f"slide-{i}" for i in range(11)))
    found = measured(write_report(write_run(slides=slides, held_out=True)), width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)
    assert found["smallest_px"] > 11
