"""`pcam-ssl report` on complete runs, and its refusals."""

import json

import pytest
import typer
from rounds_verdicts import verdict
from typer.testing import CliRunner

from pcam_ssl.cli.evaluate import report
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_json


@pytest.fixture
def invoke():
    app = typer.Typer()
    app.command()(report)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


GOOD = (
    "Can be believed. Every slide was scored by a network that was not trained on it, and the network is better than colour alone."
)


def test_prints_what_to_open_and_the_verdict(invoke, write_run):
    run = write_run()
    assert invoke(run.path).stdout == f"{run.path / 'report.html'}: {GOOD}\n"
    assert (run.path / "report.html").exists()


def test_each_of_several_runs_gets_its_page_and_its_line(invoke, write_run):
    runs = [write_run(name="a"), write_run(name="b", torn=True)]
    good, bad = invoke(*(run.path for run in runs)).stdout.splitlines()
    assert good == f"{runs[0].path / 'report.html'}: {GOOD}"
    assert bad.startswith(f"{runs[1].path / 'report.html'}: Do not believe. ")
    assert (runs[1].path / "report.html").exists()


def test_one_bad_run_is_named_and_no_page_is_written(invoke, write_run, tmp_path):
    good, unfinished = write_run(name="good"), write_run(name="unfinished")
    unfinished.paths.scores.unlink()
    problems = invoke(good.path, unfinished.path, tmp_path / "none").exception.problems
    assert [problem.partition(":")[0] for problem in problems] == [str(unfinished.path), str(tmp_path / "none")]
    assert not (good.path / "report.html").exists()


def test_the_operating_point_is_the_one_asked_for(invoke, write_run):
    run = write_run()
    point = json.loads(invoke(run.path, "--specificity", "0.9", "--json").stdout)["operating_point"]
    assert point["target"] == {"measure": "specificity", "share": 0.9}
    assert "Operating point: specificity of 90%" in (run.path / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--sensitivity", 98), "--sensitivity 98: not a share; name a number above 0 and at most 1, say 0.98"),
        (("--specificity", 0), "--specificity 0: not a share; name a number above 0 and at most 1"),
        (("--specificity", "nan"), "--specificity nan: not a share; name a number above 0 and at most 1"),
        (
            ("--sensitivity", 0.9, "--specificity", 0.9),
            "--sensitivity, --specificity: one threshold cannot keep both; name one of them",
        ),
    ],
)
def test_a_target_that_is_none_is_refused(invoke, write_run, words, error):
    run = write_run()
    assert str(invoke(run.path, *words).exception) == error
    assert not (run.path / "report.html").exists()


def test_prints_json(invoke, write_run):
    run = write_run(torn=True)
    printed = json.loads(invoke(run.path, "--json").stdout)
    assert printed["report"] == str(run.path / "report.html")
    assert printed["verdict"]["level"] == "bad"


def test_a_folder_without_a_run_is_refused(invoke, tmp_path):
    error = invoke(tmp_path).exception
    assert isinstance(error, UserError)
    assert str(error) == f"{tmp_path}: no run there; `pcam-ssl baseline --out {tmp_path}` makes one"


def test_markdown_is_the_page_and_nothing_else_is_printed(invoke, write_run):
    run = write_run(name="run <b>|c")
    printed = invoke(run.path, "--md").stdout
    assert printed.startswith("# run &lt;b&gt;|c: pcam-ssl baseline\n\nCan be believed\n")
    assert "| AUROC | 0." in printed


def test_several_runs_are_one_markdown_after_the_other(invoke, write_run):
    printed = invoke(write_run(name="a").path, write_run(name="b").path, "--md").stdout
    assert [line for line in printed.splitlines() if line.startswith("# ")] == [
        "# a: pcam-ssl baseline",
        "# b: pcam-ssl baseline",
    ]


def test_json_holds_scores_sections_and_why_some_are_absent(invoke, write_run):
    run = write_run()
    printed = json.loads(invoke(run.path, "--json").stdout)
    assert printed["scores"] == json.loads(run.paths.scores.read_text())
    assert printed["model_card"] == str(run.path / "model-card.md")
    assert printed["done"]["Trained"].startswith("resnet18 from ")
    curve = next(section for section in printed["sections"] if section["title"] == "ROC curve")
    assert curve["charts"] and curve["tables"][0]["head"][0] == "false positive rate"
    assert printed["absent"]["Scores on held-out slides"] == "the dataset has no labelled test split"
    assert printed["absent"]["Embedding map"].endswith("say where it is with --data DATASET")


def test_a_folder_of_rounds_alone_is_reported_by_its_best_round(invoke, write_run, edit):
    write_run(name="rounds")
    out = write_run(name="rounds/round-1").path.parent
    (out / "run.json").unlink()
    write_json(out / "rounds.json", verdict(best=1))
    edit(out / "round-1" / "run.json", lambda info: info.update(command="pseudo-label", round_0="runs/k", round=1))
    assert invoke(out).stdout.startswith(f"{out / 'round-1' / 'report.html'}: ")
    assert "Use round 1:" in (out / "round-1" / "report.html").read_text()


def test_a_folder_of_rounds_alone_is_reported_by_round_0_where_that_is_in_use(invoke, write_run, tmp_path):
    start = write_run()
    out = tmp_path / "rounds"
    write_json(out / "rounds.json", verdict(round0=str(start.path), best=0, best_folder=str(start.path)))
    assert invoke(out).stdout.startswith(f"{start.path / 'report.html'}: ")
    assert "Use round 0:" in start.paths.report.read_text()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--md", "--json"), "--md, --json: one of them is printed; name one"),
        (("--map", "tsne"), "--map tsne: choose pca or umap"),
        (("--device", "gpu"), "--device gpu: choose auto, cpu, cuda or mps"),
        (("--data", "/nowhere"), "/nowhere: no such dataset; make it with `pcam-ssl data import SOURCE /nowhere`"),
    ],
)
def test_bad_options_are_told_and_nothing_is_written(invoke, write_run, words, error):
    run = write_run()
    assert str(invoke(run.path, *words).exception) == error
    assert not (run.path / "report.html").exists()
