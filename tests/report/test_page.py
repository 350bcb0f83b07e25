"""`report.html`: self-contained, escaped, every number as text, and every absence explained."""

import re
import time
from html.parser import HTMLParser

import pytest
from laid_out import write_report

from pcam_ssl.errors import UserError
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table, write_table

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "img"}


class Outline(HTMLParser):
    """Elements of a page, its text, and tags left open."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(re.sub(r">\s+<", "><", page))

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text += data

    def named(self, name: str) -> list[dict]:
        return [attributes for found, attributes in self.elements if found == name]


@pytest.fixture
def report(write_run):
    """report(run=None, **choices): the outline of a run's page."""
    return lambda run=None, **choices: Outline(write_report(run or write_run(**choices)).read_text())


def test_lies_in_the_run_and_is_small(write_run):
    run = write_run(held_out=True)
    path = write_report(run)
    assert path == run.path / "report.html"
    assert path.stat().st_size < 1_000_000


def test_every_tag_is_closed(report):
    assert report(held_out=True).open == []


def test_nothing_is_fetched_and_nothing_runs(write_run):
    page = write_report(write_run(held_out=True)).read_text()
    assert not re.search(r"""(?:src|href)="(?!data:)|url\(|@import|https?://|<script|\son\w+=""", page)
    assert "default-src 'none'" in page


def test_the_same_run_gives_the_same_page(write_run):
    run = write_run()
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_the_verdict_comes_first(report):
    page = report()
    assert page.named("section")[0] == {"class": "verdict good", "aria-label": "Verdict"}
    assert page.text.index("Can be believed") < page.text.index("AUROC out of fold") < page.text.index("Scores out of fold")


def test_score_floor_and_difference_stand_together(report, write_run):
    import json

    run = write_run()
    scores = json.loads(run.paths.scores.read_text())
    values = [scores["out_of_fold"]["scores"]["auroc"], scores["floor"]["scores"]["auroc"]]
    shown = "".join(f"{v['value']:.3f}{v['low']:.3f} to {v['high']:.3f}" for v in values[:1])
    text = report(run).text
    assert f"AUROC out of fold{shown}Colour baseline{values[1]['value']:.3f}" in text
    assert f"Paired difference{scores['above_floor']['auroc']['value']:+.3f}" in text


def test_a_leak_is_loud(report):
    page = report(torn=True, marks={"scheme": "random", "grouping": "none", "slides_shared_across_folds": True})
    assert page.named("section")[0]["class"] == "verdict bad"
    assert "Do not believe" in page.text


def test_text_from_data_is_escaped_everywhere(write_run, edit):
    slides = (HOSTILE, *(f"slide-{i}" for i in range(11)))
    run = write_run(name="run <b>", slides=slides, held_out=True, marks={"notes": [HOSTILE]})
    edit(run.paths.provenance, lambda info: info.update(dataset=HOSTILE, device=HOSTILE, argv=["pcam-ssl", HOSTILE]))
    run.paths.recipe.write_text(f"model:\n  name: '{HOSTILE}'\n")
    edit(run.fold(0) / "fold.json", lambda facts: facts["calibration"].update(reason=HOSTILE))
    page = write_report(run).read_text()
    assert "<script" not in page
    assert "<b>:" not in page
    assert Outline(page).text.count(HOSTILE) >= 6


def test_every_chart_says_what_it_shows_and_has_its_numbers(report):
    page = report()
    charts = [svg for svg in page.named("svg") if svg.get("class") == "chart"]
    assert len(charts) >= 7
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    # The first chart's numbers are the tiles above it; each other has a table that opens.
    assert page.text.count("Numbers") >= len(charts) - 1


def test_a_slide_of_one_class_has_no_auroc(report):
    page = report(one_class="slide-05")
    assert "1 of 12 slides hold one class only, so their AUROC is not defined." in page.text
    assert re.search(r"slide-05240-\d\.\d{3}", page.text)


def test_many_slides_are_shown_as_the_least_accurate(report):
    page = report(slides=tuple(f"slide-{i:04}" for i in range(60)), patches=6)
    assert "The 48 least accurate of 60 slides." in page.text


def test_calibration_before_and_after(report):
    text = report().text
    assert "lower is betterbeforeafter" in text
    assert "Temperatures fitted on inner slides" in text


def test_a_fold_that_was_not_calibrated_says_why(write_run, edit, report):
    run = write_run()
    edit(run.fold(1) / "fold.json", lambda facts: facts["calibration"].update(temperature=1.0, reason="one class only"))
    assert "Fold 1: one class only." in report(run).text


def test_held_out_scores_stand_apart(report):
    text = report(held_out=True).text
    assert "AUROC held out: test" in text
    assert "Split test, mean of all folds: 288 patches (192 tumor) of 12 slides, 12 with tumor." in text


def test_the_command_that_repeats_the_run_is_quoted(report):
    assert "pcam-ssl baseline --data '/data/some slides' --recipe" in report().text


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        ("oof.parquet", "Not shown: oof.parquet is not in the run folder."),
        ("folds.parquet", "folds.parquet is not in the run folder, so slides in two folds cannot be counted"),
        ("fold-*/metrics.jsonl", "Not shown: no fold has a metrics.jsonl."),
    ],
)
def test_a_section_that_cannot_be_made_says_why(write_run, report, gone, reason):
    run = write_run()
    for path in run.path.glob(gone):
        path.unlink()
    assert reason in report(run).text


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({}, "Not shown: the dataset has no labelled test split."),
        ({"floor": False}, "No colour baseline: the recipe sets score.floor to false."),
        ({"slides": (None,) * 12}, "Not shown: slides are not known; import again with `--wsi CSV`."),
        ({"slides": ("a",), "one_class": "a"}, "Not shown: the scored patches hold one class only."),
        ({"slides": ("a",)}, "No confidence band: there is nothing to resample."),
    ],
)
def test_what_is_not_there_is_explained(report, choices, reason):
    assert reason in report(**choices).text


def test_one_class_has_neither_curve_nor_net_benefit_nor_operating_point(report):
    text = report(slides=("a",), one_class="a").text
    assert text.count("Not shown: the scored patches hold one class only.") == 3
    assert "Operating point: sensitivity of 95%Not shown: inner slides hold one class only" in text


def test_constant_predictions_are_called_what_they_are(write_run, report):
    run = write_run()
    for path in (run.path / "oof.parquet", *run.path.glob("fold-*/inner.parquet")):
        write_table(path, read_table(path)[0].assign(prob=0.4, logit=-0.4))
    page = report(run)
    assert "Every patch has the same prob (0.400), so no threshold separates the classes." in page.text
    assert "At no threshold does the network have measurably more net benefit" in page.text
    assert page.open == []


def test_inner_slides_of_one_class_have_no_curve(write_run, report):
    run = write_run()
    for path in run.path.glob("fold-*/metrics.jsonl"):
        path.write_text(re.sub(r'"inner_auroc": [\d.]+', '"inner_auroc": null', path.read_text()))
    assert "Not shown: inner slides hold one class only." in report(run).text


def test_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run there; `pcam-ssl baseline --out .*` makes one"):
        write_report(Run(tmp_path / "nothing"))


def test_an_unfinished_run_is_refused_and_nothing_is_written(write_run):
    run = write_run()
    run.paths.scores.unlink()
    with pytest.raises(UserError, match="not finished yet; run its command again"):
        write_report(run)
    assert not (run.path / "report.html").exists()


def test_twenty_thousand_rows_take_less_than_five_seconds(write_run):
    run = write_run(slides=tuple(f"slide-{i:03}" for i in range(200)), patches=100)
    begun = time.perf_counter()
    write_report(run)
    assert time.perf_counter() - begun < 5
