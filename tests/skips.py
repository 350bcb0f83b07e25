"""What was skipped, and the one command that lets it run: the last lines of `make test`."""

import sys
from collections import Counter

import pytest

INSTALL = f"{sys.executable} -m pip install -c constraints.txt -e '.[dev]'"
COMMANDS = {
    "chromium is not installed": "apt-get install chromium",
    "extra": INSTALL,
    "could not import": INSTALL,
    "real patches are not at": "ln -s WHERE_THEY_ARE/shared ../shared",
    "only root can": "sudo make test",
    "there is a CUDA device here": "CUDA_VISIBLE_DEVICES= make test",
    "takes a minute or more": "python -m pytest --slow",
}
"""By a part of the reason."""

UNKNOWN = "no command is known; add it to tests/skips.py"


def pytest_addoption(parser):
    parser.addoption(
        "--require-pages", action="store_true", help="fail where a page cannot be shown in a browser, instead of skipping"
    )


def skip_pages(config: pytest.Config, reason: str) -> None:
    """Skip a test of pages; with --require-pages let it fail."""
    (pytest.fail if config.getoption("--require-pages") else pytest.skip)(reason)


def command_for(reason: str) -> str:
    """The command that lets a test run that was skipped for `reason`."""
    return next((command for part, command in COMMANDS.items() if part in reason), UNKNOWN)


def pytest_terminal_summary(terminalreporter):
    # A report that came from a worker process holds its reason as (path, line, reason), as one made here does.
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", []))
    if not reasons:
        return
    terminalreporter.section(f"{reasons.total()} skipped, and what lets them run")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:3}  {reason}: {command_for(reason)}")
