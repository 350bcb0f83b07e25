"""docs/architecture.md: every room is in it, what it names is there, and ways through the house are no longer than it says."""

import re
from pathlib import Path

import pytest
from documented import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "pcam_ssl"


def test_every_folder_and_file_at_the_top_is_on_the_page():
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir() if not path.name.startswith(("__", "."))}
    rooms -= {"py.typed", "recipes/"}
    table = PAGE.partition("## Rooms")[2].partition("\n## ")[0]
    assert rooms - set(re.findall(r"`([\w./]+)`", table)) == set()


@pytest.mark.parametrize(
    "way", re.findall(r"^\*\*(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL), ids=lambda way: way.partition(",")[0]
)
def test_a_way_names_as_many_files_as_it_says(way):
    files = re.findall(r"`([\w/]+\.py)`", way)
    assert len(files) == len(set(files)) == int(re.search(r"\((\d+) files\)", way)[1])
    assert [name for name in files if not (PACKAGE / name).is_file()] == []


def test_the_house_stays_small():
    assert len(list(PACKAGE.rglob("*.py"))) <= 223


def test_what_is_to_be_opened_is_there():
    table = PAGE.partition("## Where to change what")[2]
    assert [name for name in re.findall(r"`([\w/.]+)`", table) if not Path(PACKAGE / name).exists()] == []
