"""The page in a real browser: nothing sticks out sideways, on a telephone or a wide screen, light or dark."""

import pytest

from pcam_ssl.report.page import write_report


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_the_page_fits_its_width_in_its_colours(write_run, measured, width_px, dark, background):
    slides = ("a-very-long-name-of-a-slide-" * 4, *(f"slide-{i}" for i in range(11)))
    found = measured(write_report(write_run(slides=slides, held_out=True)), width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)
    assert found["smallest_px"] > 11
