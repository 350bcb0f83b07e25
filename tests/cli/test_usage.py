"""Mistakes of the command line are told as all others are: one line with what, where and the next step, and exit code 2."""

import pytest

from pcam_ssl.errors import parts


@pytest.mark.parametrize(
    ("words", "where", "what", "page"),
    [
        (["data", "synth", "x", "--slides", "0"], "--slides", "1", "data synth"),
        (["label-curve", "smoke", "--budgets", "4", "--seeds", "few"], "--seeds", "integer", "label-curve"),
        (["search", "RUN", "-k", "few"], "-k", "integer", "search"),
        (["baseline", "--reciep", "smoke"], "baseline", "no such option: --reciep", "baseline"),
        (["predict", "RUN"], "predict", "missing argument 'SOURCE'", "predict"),
        (["predict", "RUN", "SOURCE"], "predict", "missing option '--out'", "predict"),
        (["predict", "RUN", "SOURCE", "--out"], "predict", "'--out' requires an argument", "predict"),
        (["baseline", "smoke"], "baseline", "smoke", "baseline"),
        (["hetmap", "RUN"], "", "no such command 'hetmap'", ""),
        (["data", "imprt", "SOURCE"], "data", "no such command 'imprt'", "data"),
    ],
)
def test_a_mistake_is_one_line_with_the_page_that_helps(command, words, where, what, page):
    done = command(*words)
    assert (done.code, done.out, len(done.err.splitlines()), len(done.problems)) == (2, "", 1, 1), done.err
    problem = parts(done.problems[0])
    assert problem.where == where
    assert what in done.problems[0] and done.problems[0].endswith(f"`pcam-ssl {page} --help` says what it takes".replace("  ", " "))


@pytest.mark.parametrize(("words", "near"), [(["baseline", "--reciep", "x"], "--recipe"), (["hetmap"], "heatmap")])
def test_what_was_meant_is_named(command, words, near):
    assert f"Did you mean {near}" in command(*words).problems[0].replace("'", "")


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["predict", "--help"], ["--version"]])
def test_help_is_printed_and_is_no_mistake(command, words):
    done = command(*words)
    assert (done.code, done.err) == (0, "") and done.out.startswith(("Usage: pcam-ssl", "pcam-ssl "))


@pytest.mark.parametrize("words", [[], ["data"]])
def test_without_a_command_the_help_lists_them(command, words):
    done = command(*words)
    assert done.problems == [] and "Commands:" in done.out + done.err


def test_a_command_that_one_process_runs_says_so_before_its_options_are_read(command, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = command("report", "--colour")
    assert done.code == 2 and done.problems == ["report: runs in one process; start it without torchrun"]
