"""The documents cannot drift from the commands: help texts are generated, and what is shown must exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"pcam-ssl ((?:data |recipes )?[a-z-]+)((?: [^`\n#|]*)?)")


@pytest.fixture(scope="module")
def generated() -> str:
    """The reference of every command, as typer writes it."""
    words = [sys.executable, "-m", "typer", "pcam_ssl.cli", "utils", "docs", "--name", "pcam-ssl"]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


@pytest.mark.processes
def test_the_command_reference_is_current(generated):
    assert (ROOT / "docs" / "cli.md").read_text().strip() == generated, "run `make docs`"


def sections(generated: str) -> dict[str, str]:
    parts = re.split(r"^#+ `pcam-ssl ?(.*)`$", generated, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "cli.md"], ids=lambda page: page.name)
def test_commands_and_options_that_are_shown_exist(page, generated):
    known = sections(generated)
    shown = [
        (name, rest)
        for name, rest in SHOWN.findall(page.read_text())
        if name.split()[0] in {key.split()[0] for key in known if key}
    ]
    for name, rest in shown:
        section = known.get(name)
        if section is None:
            section = known[name.split()[0]]
        for option in re.findall(r"(?<!\S)--[a-z0-9-]+", rest):
            assert f"`{option}" in section or f", {option}" in section or f"{option}`" in section, (
                f"{page.name}: pcam-ssl {name} {option}"
            )


def test_the_readme_shows_commands():
    assert len(SHOWN.findall((ROOT / "README.md").read_text())) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_linked_files_exist(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_guarantees_name_tests_that_exist():
    named = re.findall(r"`(tests/[^`]+\.py)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) >= 5
    assert [path for path in named if not (ROOT / path).exists()] == []
