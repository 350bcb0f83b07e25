"""docs/api.md cannot drift from the docstrings, and holds every public name."""

import runpy
from pathlib import Path

import pcam_ssl as pcam

ROOT = Path(__file__).parent.parent.parent


def test_the_reference_of_the_api_is_current():
    made = runpy.run_path(str(ROOT / "scripts" / "api_page.py"))["page"]()
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_every_public_name_stands_in_it():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    absent = [name for name in pcam.__all__ if f"`pcam.{name}`" not in page and f"### `{name}`" not in page]
    assert absent == ["Recipe"], "Recipe has the page of recipe keys"
