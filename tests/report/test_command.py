"""`pcam-ssl report` on a run that has all a report reads."""

import json

import pytest
import typer
from typer.testing import CliRunner

from pcam_ssl.cli.report import report
from pcam_ssl.errors import UserError


@pytest.fixture
def invoke():
    app = typer.Typer()
    app.command()(report)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_prints_the_verdict_and_what_to_open(invoke, write_run):
    run = write_run()
    assert invoke(run.path).stdout == (
        "Can be believed: Every slide was scored by a network that never saw it, and the network sees more than colour.\n"
        f"report {run.path / 'report.html'}\n"
    )
    assert (run.path / "report.html").exists()


def test_prints_json(invoke, write_run):
    run = write_run(torn=True)
    printed = json.loads(invoke(run.path, "--json").stdout)
    assert printed["report"] == str(run.path / "report.html")
    assert printed["verdict"]["level"] == "bad"


def test_a_folder_without_a_run_is_refused(invoke, tmp_path):
    error = invoke(tmp_path).exception
    assert isinstance(error, UserError)
    assert str(error) == f"{tmp_path}: no run there; `pcam-ssl baseline --out {tmp_path}` makes one"
