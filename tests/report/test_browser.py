"""The page in a real browser: no horizontal overflow, on a phone or a wide screen, light or dark."""

import pytest
from laid_out import write_report
from report_pictures import case, fold_map, pictures


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_the_page_fits_its_width_in_its_colours(write_run, measured, width_px, dark, background):
    slides = ("a-very-long-name-of-a-slide-" * 4, *(f"slide-{i}" for i in range(11)))
    found = measured(write_report(write_run(slides=slides, held_out=True)), width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)
    assert found["smallest_px"] > 11


@pytest.mark.parametrize(("width_px", "dark"), [(400, False), (1600, True)])
def test_galleries_and_maps_fit_too_and_names_from_data_run_nothing(write_run, measured, width_px, dark):
    hostile = "<script>alert(1)</script>" * 3
    shown = pictures(
        wrong=[case(hostile, wsi=hostile)] + [case(f"{n:040x}", wsi="a-very-long-name-of-a-slide-" * 3) for n in range(11)],
        maps=[fold_map(k, slides=(hostile, "a", "b", "c")) for k in range(3)],
    )
    found = measured(write_report(write_run(slides=(hostile, "b", "c", "d")), pictures=shown), width_px, dark)
    assert (found["over_px"], found["scripts"], found["pictures"]) == (0, 0, 13 * 4)
