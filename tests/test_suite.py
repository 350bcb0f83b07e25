"""The suite about itself: marks follow from what a test does, and no test is skipped without a way to run it."""

import ast
import re
import subprocess
import sys
from ctypes.util import find_library
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
import skips
from _pytest.mark.expression import Expression
from costs import FIXTURES, marks_of

from pcam_ssl.training import loop as fit

TESTS = Path(__file__).parent


@pytest.mark.parametrize("mark", FIXTURES)
def test_a_costly_fixture_marks_the_tests_that_use_it(mark):
    assert all(mark in marks_of(["tmp_path", fixture]) for fixture in FIXTURES[mark])


def test_fixtures_count_through_others(request):
    used = [item for item in request.session.items if "finished" in item.fixturenames]
    assert [item.nodeid for item in used if not item.get_closest_marker("trains")] == []


def test_a_process_without_its_mark_is_refused():
    with pytest.raises(pytest.fail.Exception, match=r"test_a_process_without_its_mark_is_refused lacks @pytest.mark.processes"):
        subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.processes
def test_a_process_with_its_mark_starts():
    assert subprocess.run([sys.executable, "-c", "print(1)"], check=True, capture_output=True).stdout == b"1\n"


def test_a_library_may_ask_what_machine_this_is():
    assert find_library("c")


def test_training_without_its_mark_is_refused():
    with pytest.raises(pytest.fail.Exception, match=r"lacks @pytest.mark.trains"):
        fit.train_step(*[None] * 6)


def commands(path: Path) -> dict[str, str]:
    """The pytest line of each target of a Makefile."""
    found, target = {}, ""
    for line in path.read_text().splitlines():
        target = line.partition(":")[0] if ":" in line and not line.startswith(("\t", "#", " ")) else target
        if line.startswith("\t") and " -m pytest " in line:
            found[target] = line.partition(" -m pytest ")[2]
    return found


def test_each_test_is_in_one_of_the_two_parts_that_ci_runs():
    marks = {target: re.search(r'-m "(.*)"', line) for target, line in commands(TESTS.parent / "Makefile").items()}
    parts = [Expression.compile(marks[target][1]) for target in ("quick", "rest")]
    for held in [set(some) for n in range(len(FIXTURES) + 1) for some in combinations(FIXTURES, n)]:
        assert sum(part.evaluate(lambda name, held=held, **_: name in held) for part in parts) == 1, held
    assert marks["test"] is None, "for people, `make test` is the whole suite"


def test_ci_runs_both_parts_and_requires_pages_in_both():
    lines = (TESTS.parent / ".ci" / "run").read_text().splitlines()
    order = [line for line in lines if line in ("make quick", "make rest") or "PYTEST_ADDOPTS" in line]
    assert order == ["export PYTEST_ADDOPTS=--require-pages", "make quick", "make rest", "unset PYTEST_ADDOPTS"]


def written_reasons(path: Path) -> list[str]:
    """The reasons of the skips in a file, without what is filled in later."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    reasons = []
    for call in calls:
        name = getattr(call.func, "attr", None) or getattr(call.func, "id", None)
        keyword = next((each.value for each in call.keywords if each.arg == "reason"), None)
        if name == "skip_pages" or name == "skip":
            reasons.append(keyword or call.args[-1])
        elif name in ("skipif", "importorskip"):
            reasons.append(keyword or ast.Constant("could not import"))
    return ["".join(str(part.value) for part in ast.walk(reason) if isinstance(part, ast.Constant)) for reason in reasons]


def test_every_skip_has_a_command():
    found = {(path.name, reason) for path in TESTS.rglob("test_*.py") for reason in written_reasons(path)}
    found |= {(path.name, reason) for path in TESTS.rglob("conftest.py") for reason in written_reasons(path)}
    assert len(found) > 8
    assert [each for each in found if skips.command_for(each[1]) == skips.UNKNOWN] == []


def test_the_summary_counts_skips_by_reason_with_their_command():
    reports = [
        SimpleNamespace(longrepr=("tests/a.py", 3, f"Skipped: {reason}")) for reason in ("only root can mount", *2 * ["a whim"])
    ]
    lines = []
    terminal = SimpleNamespace(stats={"skipped": reports}, section=lines.append, line=lines.append)
    skips.pytest_terminal_summary(terminal)
    assert lines[0].startswith("3 skipped")
    assert [line.split() for line in lines[1:]] == [
        ["2", "a", "whim:", *skips.UNKNOWN.split()],
        ["1", "only", "root", "can", "mount:", "sudo", "make", "test"],
    ]


@pytest.mark.parametrize(("required", "end"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)])
def test_pages_may_be_required(required, end):
    with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="chromium") as caught:
        skips.skip_pages(SimpleNamespace(getoption=lambda name: required), "chromium is not installed")
    assert caught.type is end
