"""The marks `trains` and `processes`, which `make quick` leaves out: set from a test's fixtures, and a test that lacks its mark fails.

A fixture that trains or starts a process belongs in `FIXTURES`; a test that does so by itself takes `@pytest.mark.trains` or
`@pytest.mark.processes` (a whole file: `pytestmark = ...`).
"""

import functools
import multiprocessing.process
import subprocess
import sys
import traceback

import pytest

FIXTURES = {
    "trains": {"train", "trained_run", "make_rounds", "metric_run", "swept", "umapped", "made"},
    "processes": {"start", "measured", "small_disk"},
}
"""The fixtures that do it; those built on them are found by pytest."""

FIT = "pcam_ssl.training.loop"
PROBES = {"platform", "ctypes.util"}
"""Modules that ask `uname` or `ldconfig` once, for whichever library comes first: no test's doing."""

_running: list[pytest.Item] = []


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "trains: trains a network, or a map by UMAP, which compiles for 14 s; set from fixtures, see tests/costs.py"
    )
    config.addinivalue_line("markers", "processes: starts a second process; set from fixtures, see tests/costs.py")
    _guard(subprocess.Popen, "__init__", "processes")
    _guard(multiprocessing.process.BaseProcess, "start", "processes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        for mark in marks_of(item.fixturenames):
            item.add_marker(mark)


def marks_of(fixtures) -> set[str]:
    """The marks of a test that uses these fixtures, directly or through others."""
    return {mark for mark, costly in FIXTURES.items() if costly & set(fixtures)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    # Importing torch for a test that does not need it would cost seconds; `make quick` collects, so imports, every file first.
    if FIT in sys.modules:
        _guard(sys.modules[FIT], "train_step", "trains")
    _running.append(item)
    try:
        return (yield)
    finally:
        _running.pop()


def _guard(owner, name: str, mark: str) -> None:
    """Let `owner.name` fail in tests that lack `mark`. Shared fixtures are made inside of the test that first asks for them."""
    original = getattr(owner, name)
    if hasattr(original, "guarded"):
        return

    @functools.wraps(original)
    def guarded(*args, **kwargs):
        if _running and not _running[-1].get_closest_marker(mark) and not _probing():
            pytest.fail(f"{_running[-1].nodeid} lacks @pytest.mark.{mark} (or its fixture a place in FIXTURES of tests/costs.py)")
        return original(*args, **kwargs)

    guarded.guarded = True
    setattr(owner, name, guarded)


def _probing() -> bool:
    return any(frame.f_globals.get("__name__") in PROBES for frame, _ in traceback.walk_stack(None))
