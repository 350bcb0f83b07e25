"""Imports go one way, and what need not wait for torch does not."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pcam_ssl

PACKAGE = Path(pcam_ssl.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
LEVELS = [
    ("__main__",),
    ("cli",),
    ("workflows",),
    ("doctor",),
    ("engine", "inference", "report", "selection"),
    ("methods", "data", "models"),
    ("run", "world"),
    ("recipe_files", "tables"),
    ("recipe",),
    ("recipe_methods", "recipe_pseudo"),
    ("recipe_section",),
    ("files", "records", "render", "terminal"),
    ("errors",),
]
LEVEL_OF = {name: number for number, names in enumerate(LEVELS) for name in names}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("pcam_ssl.")}
    return found


def test_every_part_has_a_level():
    assert {part(path) for path in MODULES} - {"__init__"} == set(LEVEL_OF)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    mine = LEVEL_OF.get(part(path), len(LEVELS))
    upward = {name for name in imported_parts(path) if LEVEL_OF[name] < mine}
    assert upward == set()


def test_only_views_imports_albumentations():
    assert [path.name for path in MODULES if "import albumentations" in path.read_text()] == ["views.py"]


def fresh_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.processes
def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['pcam-ssl', '--help']\n"
        "from pcam_ssl.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: print('code', stop.code)\n"
        "print([name for name in ('torch', 'pandas', 'numpy', 'sklearn', 'timm', 'albumentations') if name in sys.modules])"
    )
    printed = fresh_python(code)
    assert "baseline" in printed
    assert printed.splitlines()[-2:] == ["code 0", "[]"]


@pytest.mark.processes
def test_modules_that_say_no_torch_load_no_torch():
    names = [
        "pcam_ssl." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if "No torch." in (ast.get_docstring(ast.parse(path.read_text())) or "")
    ]
    assert len(names) > 15
    code = f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    fresh_python(code)
