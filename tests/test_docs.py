"""The documents cannot drift from the commands: help texts are generated, and what is shown must exist."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from pcam_ssl.models.foundation import FOUNDATION_MODELS
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.tables import DECISION_COLUMNS, FOLD_COLUMNS, PATCH_COLUMNS, PREDICTION_COLUMNS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"pcam-ssl ((?:data |recipes )?[a-z-]+)((?: [^`\n#|]*)?)")


@pytest.fixture(scope="module")
def generated() -> str:
    """The reference of every command, as typer writes it."""
    words = [sys.executable, "-m", "typer", "pcam_ssl.cli", "utils", "docs", "--name", "pcam-ssl"]
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()


@pytest.mark.processes
def test_the_command_reference_is_current(generated):
    assert (ROOT / "docs" / "cli.md").read_text().strip() == generated, "run `make docs`"


def test_the_reference_of_recipe_keys_is_current():
    made = runpy.run_path(str(ROOT / "scripts" / "recipe_keys.py"))["page"]()
    assert (ROOT / "docs" / "recipe-keys.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_the_tables_of_foundation_models_are_current():
    page = (ROOT / "docs" / "foundation-models.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "scripts" / "foundation_table.py"))["page"](page) == page, "run `make docs`"


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_the_page_of_foundation_models_has_the_terms_of_each(name):
    page = (ROOT / "docs" / "foundation-models.md").read_text(encoding="utf-8")
    model = FOUNDATION_MODELS[name]
    (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` | [")]
    assert model.page in row and f"| {model.licence} | {'yes' if model.gated else 'no'} |" in row


@pytest.mark.parametrize(
    ("heading", "columns"),
    [
        ("Dataset", PATCH_COLUMNS),
        ("Predictions", PREDICTION_COLUMNS),
        ("Folds", FOLD_COLUMNS),
        ("Pseudo-labels", DECISION_COLUMNS),
    ],
)
def test_the_reference_of_files_has_every_column(heading, columns):
    section = (ROOT / "docs" / "files.md").read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, flags=re.MULTILINE)) == columns


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The documentation as a site, built as `make docs-site` builds it."""
    build = pytest.importorskip("mkdocs.commands.build", reason="mkdocs-material is not installed (extra: docs)").build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_the_site_has_every_page_and_fetches_nothing(site):
    pages = [path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in [*pages, Path("results.html"), Path("changelog.html")] if not (site / page).is_file()] == []
    html = "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))
    fetched = re.findall(
        r"<(?:script|img|iframe)[^>]+src=[\"']?(https?:[^\"' >]+)|<link[^>]+rel=[\"']?(?:stylesheet|preconnect)[^>]*https?:", html
    )
    assert fetched == []


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


KEY = re.compile(r"(?<![\w./-])(?:(?<=set )|(?<=raise )|(?<=lower )|(?=(?:{})\.))([a-z_]+\.[a-z_]\w*)")
FILES = ("md", "css", "csv", "faiss", "html", "ids", "json", "jsonl", "npy", "parquet", "pt", "safetensors", "yaml")


def keys_named(text: str, sections: list[str]) -> set[str]:
    """What a text names as a key of a recipe: `section.key`, or whatever it tells the reader to set, raise or lower."""
    found = re.findall(KEY.pattern.format("|".join(sections)), text)
    return {key for key in found if not key.endswith(FILES)}


def words_of(module: Path) -> str:
    """The texts of a module that a user may see: its strings without docstrings."""
    tree = ast.parse(module.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(node.value for node in strings if id(node) not in docstrings)


def recipe_keys() -> set[str]:
    """`section.key` of every method, optimizer and schedule."""
    sections = {
        name: [each for each in (field.annotation, *get_args(field.annotation)) if hasattr(each, "model_fields")]
        for name, field in Recipe.model_fields.items()
    }
    return {f"{name}.{key}" for name, members in sections.items() for each in members for key in each.model_fields}


def test_keys_of_a_recipe_that_are_named_exist():
    sections = [name for name in Recipe.model_fields if name != "seed"]
    # extend.md names keys that its diffs add; architecture.md names files.
    others = ("extend.md", "architecture.md")
    texts = {page: page.read_text() for page in [*PAGES, ROOT / "RESULTS.md", ROOT / "BENCHMARKS.md"] if page.name not in others}
    texts |= {module: words_of(module) for module in (ROOT / "pcam_ssl").rglob("*.py")}
    known = {*recipe_keys(), "section.key"}
    unknown = {str(path.relative_to(ROOT)): keys_named(text, sections) - known for path, text in texts.items()}
    assert {path: keys for path, keys in unknown.items() if keys} == {}


def test_a_key_that_does_not_exist_is_found():
    assert keys_named("set knn.k to 9; see train.epoch, or data.parquet", ["train", "data"]) == {"knn.k", "train.epoch"}
