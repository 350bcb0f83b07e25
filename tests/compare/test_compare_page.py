"""The page of a comparison: self-contained, escaped, fit for ten runs as for two, with a reason for each absent part."""

import re

import numpy as np
import pytest
import scored

from pcam_ssl.compare.charts import correlations
from pcam_ssl.compare.compare import compare_runs, write_page
from pcam_ssl.compare.report import comparison_document, page
from pcam_ssl.render.document import Table
from pcam_ssl.render.text import outline

HOSTILE = "<script>alert(1)<script>"


@pytest.fixture(scope="module")
def write_runs(tmp_path_factory):
    """write_runs(n, **choices): folders of n runs of rising skill, named by `name` and a number."""

    def write_runs(n, name="run", **choices) -> list[str]:
        folder = tmp_path_factory.mktemp("runs")
        return [str(scored.write_scored(folder / f"{name}{k}", seed=k, skill=1 + k / 2, **choices).path) for k in range(n)]

    return write_runs


@pytest.fixture(scope="module")
def three(write_runs):
    """The comparison of three runs with labelled held-out slides. Do not change it."""
    return compare_runs(write_runs(3, test_labels=True))


@pytest.fixture
def two(write_runs):
    """The comparison of two runs without a test split."""
    return compare_runs(write_runs(2, test=False))


def heat_map(comparison) -> Table:
    """The table of correlations."""
    return next(block for block in correlations(comparison).blocks if isinstance(block, Table))


def test_nothing_is_fetched_and_nothing_runs(three):
    assert not re.search(r"""(?:src|href)="(?!data:)|url\(|@import|https?://|<script|\son\w+=""", page(three))


def test_the_same_comparison_gives_the_same_page(three):
    assert page(three) == page(three)


def test_names_from_the_disk_are_escaped(write_runs):
    shown = page(compare_runs(write_runs(2, name=HOSTILE.replace("/", ""))))
    assert "<script" not in shown and "&lt;script&gt;alert(1)" in shown


def test_every_score_and_difference_stands_as_text(three):
    shown = page(three)
    for run in three["runs"]:
        assert f"{run['scores']['auroc']['value']:.3f}" in shown
    for run in three["runs"][1:]:
        assert f"{run['against_first']['auroc']['value']:+.3f}" in shown


def test_every_chart_says_its_numbers_or_where_they_are(three):
    said = [entry.text for entry in outline(comparison_document(three)) if entry.kind == "chart"]
    assert len(said) == page(three).count('class="chart"') == 5
    assert all("numbers below" in text or "run0: " in text for text in said)


def test_the_heat_map_holds_pearson_below_and_spearman_above(three):
    below, above = three["correlation"]["pearson"], three["correlation"]["spearman"]
    wanted = [["" if i == j else f"{(below if j < i else above)[i][j]:.2f}" for j in range(3)] for i in range(3)]
    assert [[cell.text for cell in row[1:]] for row in heat_map(three).rows] == wanted


def test_the_heat_map_is_darker_where_runs_are_more_alike(three):
    cells = [cell for row in heat_map(three).rows for cell in row[1:] if cell.text]
    values = [float(cell.text) for cell in sorted(cells, key=lambda cell: cell.shade)]
    assert values == sorted(values) and values[0] < values[-1]


def test_held_out_scores_are_drawn_against_those_out_of_fold(three):
    shown = page(three)
    held = three["runs"][1]["held_out"]["test"]["value"]
    assert f"run1: {three['runs'][1]['scores']['auroc']['value']:.3f} out of fold, {held:.3f} on test" in shown


def test_what_is_absent_says_why(two):
    assert "Not shown: no run has scores on held-out slides, because the dataset has no labelled test split." in page(two)
    for run in two["runs"]:
        run["learning"] = None
    assert page(two).count("Not shown: no run has recorded it by epoch.") == 2


def test_scores_marked_too_good_are_said_first(write_runs, tmp_path):
    marked = scored.write_scored(tmp_path / "marked", marks={"selected_on_fold": True})
    shown = page(compare_runs([str(marked.path), *write_runs(1)]))
    assert shown.index("Scores marked too good") < shown.index("marked *")
    assert "the epoch was chosen on the scored patches" in shown


def test_one_class_leaves_the_charts_of_auroc_out(write_runs):
    shown = page(compare_runs(write_runs(2, labels=np.zeros(scored.N, int), test=False)))
    assert "There is no AUROC: the scored patches hold one class only." in shown
    assert "Not shown: the scored patches hold one class only." in shown


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_ten_runs_of_long_names_fit_a_telephone_and_a_wide_screen(write_runs, measured, tmp_path, width_px, dark, background):
    write_page(tmp_path / "page.html", compare_runs(write_runs(10, name="a-very-long-name-of-a-run-" * 3, test_labels=True)))
    found = measured(tmp_path / "page.html", width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)
    assert found["smallest_px"] > 11
