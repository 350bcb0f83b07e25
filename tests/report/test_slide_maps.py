"""Maps of slides: a cell for each place, worst slides first, and their section on a page."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.render.document import Document
from pcam_ssl.render.html import page
from pcam_ssl.report.slide_maps import FEW, SHOWN, slide_maps, slide_maps_section


def scored_of(rows) -> tuple[pd.DataFrame, SimpleNamespace]:
    """Scored patches and a dataset from (slide, x, y, label, prob)."""
    table = pd.DataFrame(rows, columns=["wsi", "x", "y", "label", "prob"]).assign(id=[f"p{n:03d}" for n in range(len(rows))])
    places = table[["id", "x", "y"]].astype({"x": "Int32", "y": "Int32"})
    return table[["id", "wsi", "label", "prob"]].astype({"label": "Int8"}), SimpleNamespace(patches=places)


ONE = [("s", 101, 51, 0, 0.1), ("s", 151, 51, 1, 0.9), ("s", 101, 151, 1, 0.2)]


def test_a_cell_holds_the_patch_that_lies_there():
    (only,) = slide_maps(*scored_of(ONE))
    np.testing.assert_array_equal(only.prob, [[0.1, 0.9], [np.nan, np.nan], [0.2, np.nan]])
    np.testing.assert_array_equal(only.truth, [[0, 1], [np.nan, np.nan], [1, np.nan]])
    assert (only.n, only.n_tumor, only.auroc) == (3, 2, 1.0)


def test_cells_of_a_large_slide_hold_the_mean_of_several_patches():
    rows = [("s", 10 * i, 0, i % 2, 0.25 + 0.5 * (i % 2)) for i in range(256)]
    (only,) = slide_maps(*scored_of(rows))
    assert only.prob.shape == (1, 64)
    np.testing.assert_allclose(only.prob, 0.5)


def test_the_worst_slide_comes_first():
    rows = [("good", 0, 0, 1, 0.9), ("bad", 0, 0, 1, 0.1), ("fair", 0, 0, 0, 0.4)]
    assert [each.wsi for each in slide_maps(*scored_of(rows))] == ["bad", "fair", "good"]


def test_slides_with_few_patches_come_last():
    rows = [("few", 0, 0, 1, 0.1), *[("many", i, 0, 1, 0.9) for i in range(FEW)]]
    assert [each.wsi for each in slide_maps(*scored_of(rows))] == ["many", "few"]


def test_patches_without_a_place_are_on_no_map():
    scored, dataset = scored_of(ONE)
    dataset.patches.loc[0, "x"] = pd.NA
    assert slide_maps(scored, dataset)[0].n == 2
    dataset.patches["x"] = pd.NA
    assert slide_maps(scored, dataset) == []
    assert slide_maps_section([]) is None


@pytest.mark.parametrize(("n", "said"), [(2, False), (SHOWN + 3, True)])
def test_a_page_shows_the_worst_and_says_how_many_there_are(n, said):
    maps = slide_maps(*scored_of([(f"s{i:02d}", 0, 0, 1, 0.9 - 0.01 * i) for i in range(n)]))
    html = page(Document("t", [slide_maps_section(maps)]))
    assert html.count('alt="slide s') == 2 * min(n, SHOWN)
    assert (f"{SHOWN} of {n} slides are shown" in html) == said
