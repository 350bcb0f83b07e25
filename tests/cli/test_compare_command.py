"""`compare`, `blend` and `baseline --sweep` from the command line."""

import json

import pytest
import scored

from pcam_ssl.tables import read_table


@pytest.fixture
def runs(tmp_path):
    return [scored.write_scored(tmp_path / name, seed=seed, skill=seed).path for seed, name in ((1, "a"), (3, "b"))]


def test_compare_prints_tables_and_writes_the_page(command, runs, tmp_path):
    done = command("compare", *runs, "--html", tmp_path / "page.html")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("2 runs on the same 120 patches (80 tumor) of 8 slides, 2 folds grouped by slides")
    assert done.out.endswith(f"page {tmp_path / 'page.html'}\n")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")


def test_compare_prints_json_and_nothing_else(command, runs, tmp_path):
    done = command("compare", *runs, "--json", "--html", tmp_path / "page.html")
    assert [run["name"] for run in json.loads(done.out)["runs"]] == ["a", "b"]


def test_runs_that_cannot_be_compared_are_one_line_and_exit_2(command, runs, tmp_path):
    other = scored.write_scored(tmp_path / "other", dataset="e").path
    done = command("compare", runs[0], other, "--html", tmp_path / "page.html")
    assert (done.code, done.out, len(done.problems)) == (2, "", 1)
    assert not (tmp_path / "page.html").exists()


def test_blend_prints_scores_and_members(command, runs, tmp_path):
    done = command("blend", *runs, "--method", "rank-mean", "--out", tmp_path / "blend")
    assert done.code == 0
    assert done.out.startswith("Out of fold, folds grouped by slides: 120 patches")
    assert "member  AUROC  weight\n" in done.out and "Paired difference to" in done.out
    assert len(read_table(tmp_path / "blend" / "oof.parquet")[0]) == 120


def test_blend_prints_scores_json(command, runs, tmp_path):
    done = command("blend", *runs, "--json", "--out", tmp_path / "blend")
    assert json.loads(done.out) == json.loads((tmp_path / "blend" / "scores.json").read_text())


def test_a_wrong_method_is_one_line_and_exit_2(command, runs, tmp_path):
    done = command("blend", *runs, "--method", "median", "--out", tmp_path / "blend")
    assert (done.code, len(done.problems)) == (2, 1)
    assert not (tmp_path / "blend").exists()


def test_html_without_a_sweep_is_refused(command, tmp_path):
    done = command("baseline", "--html", tmp_path / "page.html")
    assert done.problems == ["--html: only with --sweep; a run's own page is written as RUN/report.html"]


@pytest.mark.trains
def test_a_sweep_compares_what_it_trained_and_exits_2_where_one_failed(command, tiny, slides, tmp_path):
    settings = [word for each in tiny("train.epochs=1") if not each.startswith("model.name=") for word in ("--set", each)]
    words = ["--data", slides, "--out", tmp_path / "zoo", "--html", tmp_path / "zoo.html", *settings]
    done = command("baseline", "--sweep", "model.name=test_resnet,nosuch,test_vit", *words)
    assert done.code == 2
    assert done.out.startswith("2 runs on the same 80 patches")
    assert done.problems[-1].startswith(f"{tmp_path}/zoo/nosuch: model.name: timm has no backbone nosuch")
    assert (tmp_path / "zoo.html").exists()
