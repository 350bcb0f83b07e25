"""The table of sections decides what a report holds, and in which order."""

from pcam_ssl.render import html
from pcam_ssl.render.document import Group, Paragraph, Section
from pcam_ssl.render.text import outline, sections
from pcam_ssl.report import report
from pcam_ssl.runs.contents import read_facts


def keys(parts) -> list[str]:
    """Keys of all sections, from the top of the page to its end."""
    found = []
    for part in parts:
        found += keys(part.blocks) if isinstance(part, Group) else [part.key] if isinstance(part, Section) else []
    return found


def test_the_page_has_the_sections_of_the_table_in_its_order(write_run):
    made = report.Report(read_facts(write_run(held_out=True)))
    listed = [key for key, *_ in report.SECTIONS]
    # A run that is no blend has no members, one without rounds no pooled ones, and one without coordinates no maps of slides.
    assert keys(made.document.body) == [key for key in listed if key not in ("members", "pooled", "slide-maps")]
    assert len(set(listed)) == len(listed)


def test_a_section_without_a_title_of_its_own_has_that_of_the_table(write_run):
    titles = {title for _, title, *_ in report.SECTIONS}
    told = [entry.text for entry in outline(report.Report(read_facts(write_run())).document) if entry.kind == "h2"]
    assert {"Scores out of fold", "Scores by slide", "Scores by fold"} <= titles & set(told)
    assert "Operating point: sensitivity of 95%" in told
    assert "" not in told


def test_a_section_is_added_by_a_function_and_a_line(write_run, monkeypatch):
    mine = ("mine", "My section", lambda report: Section(blocks=(Paragraph(f"{len(report.facts.oof)} patches."),)), "")
    monkeypatch.setattr(report, "SECTIONS", (mine, *report.SECTIONS))
    document = report.Report(read_facts(write_run())).document
    assert sections(document)[1] == {"title": "My section", "absent": None, "text": ["288 patches."], "charts": [], "tables": []}
    assert '<section class="card">\n<h2>My section</h2>\n<p>288 patches.</p>' in html.page(document)


def test_a_section_without_content_is_left_out(write_run, monkeypatch):
    monkeypatch.setattr(report, "SECTIONS", (("none", "None", lambda report: None, "columns-1/1"),))
    document = report.Report(read_facts(write_run())).document
    assert keys(document.body) == []


def test_sections_of_a_row_stand_side_by_side(write_run):
    document = report.Report(read_facts(write_run())).document
    rows = [part for part in document.body if isinstance(part, Group)]
    assert [row.look for row in rows] == ["columns", "columns", "pair", "wide", "pair"]
    assert [keys(column.blocks) for column in rows[0].blocks] == [["scores", "held-out"], ["roc", "precision"], ["operating-point"]]
