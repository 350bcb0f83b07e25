"""Rounds on the page: the verdict first, every table of the text, and the page of each run they concern."""

import pytest
from laid_out import markup, words, write_report
from rounds_verdicts import pooled, row, verdict

from pcam_ssl.errors import UserError
from pcam_ssl.files import write_json
from pcam_ssl.pseudo_labels.report import rounds_section, sections
from pcam_ssl.render.document import Table
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.runs.run import Run


def test_no_rounds_says_how_to_make_them():
    assert "the run has no rounds; `pcam-ssl pseudo-label RUN` makes them" in rounds_section({}).absent
    assert rounds_section({}, pooled=True) is None


def test_the_verdict_and_its_command_come_before_what_opens(tmp_path):
    card = markup(rounds_section({tmp_path: verdict(stopped="round 3 is no better")}))
    assert card.index("A gain.") < card.index("Stopped: round 3 is no better.") < card.index("<details")
    assert card.index("<pre>pcam-ssl predict runs/k/round-2 SOURCE") < card.index("<details")


@pytest.mark.parametrize("told", [verdict, pooled])
def test_every_section_of_the_text_is_there_with_its_table(tmp_path, told):
    card = words(rounds_section({tmp_path: told()}, pooled=told is pooled))
    for section in sections(told())[1:]:
        assert f"|{section.title}|" in card
        for table in [block for block in section.blocks if isinstance(block, Table)]:
            for line in table.rows:
                assert "|".join(cell for cell in line[1:] if cell) in card


def test_the_chart_names_each_paired_gain_and_its_interval(tmp_path):
    card = markup(rounds_section({tmp_path: verdict()}))
    assert "zero is no gain. round 1: +0.003 (-0.001 to +0.007); round 2: +0.012 (+0.008 to +0.016); each fold" in card


def test_pooled_rounds_have_no_chart_of_gains(tmp_path):
    assert "<svg" not in markup(rounds_section({tmp_path: pooled()}, pooled=True))


def test_text_of_rounds_is_escaped(tmp_path):
    card = markup(rounds_section({tmp_path: verdict(verdict="<script>", stopped="<b>", rounds=[row(0, 0.9, 0)])}))
    assert "<script>" not in card
    assert "<b>" not in card


def test_a_run_shows_the_rounds_on_top_of_it_and_a_round_those_it_is_one_of(write_run, edit):
    run = write_run()
    write_json(run.path / "rounds.json", verdict())
    write_json(run.path / "pooled" / "rounds.json", pooled())
    assert list(read_facts(run).rounds) == [run.path, run.path / "pooled"]
    round_1 = write_run(name="run/round-1")
    edit(round_1.paths.provenance, lambda info: info.update(command="pseudo-label", round_0=str(run.path), round=1))
    assert list(read_facts(round_1).rounds) == [run.path]
    assert "Use round 2:" in write_report(round_1).read_text()


def test_a_pooled_round_says_whose_page_shows_it(write_run, edit):
    run: Run = write_run()
    edit(run.paths.provenance, lambda info: info.update(command="pseudo-label", round_0="runs/k"))
    edit(run.paths.scores, lambda scores: scores.update(out_of_fold=None, withheld="pooled"))
    with pytest.raises(UserError, match=r"withheld \(pooled\); `pcam-ssl report runs/k` shows what it learned from"):
        write_report(run)
