"""Imports go one way, no two files import each other in a circle, and what need not wait for torch does not."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pcam_ssl

PACKAGE = Path(pcam_ssl.__file__).parent
FILES = {
    ".".join(("pcam_ssl", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LEVELS = [
    {"__main__"},
    {"cli"},
    {"demo"},
    {"api"},
    {"results", "units"},
    {"doctor", "label_curve", "report"},
    {"pseudo_labels"},
    {"blending", "explain", "heatmap"},
    {"audit", "compare", "cross_validation", "export", "search"},
    {"methods", "runs", "training"},
    {"models", "neighbors"},
    {"slides"},
    {"data", "evaluation"},
    {"distributed", "recipe", "records", "tables"},
    {"render"},
    {"device", "files", "terminal"},
    {"errors"},
]
"""From the command line down: a folder or file imports only from its own row and those below it."""

TORCH_FREE = [
    "api",
    "audit.audit",
    "audit.duplicates",
    "audit.findings",
    "audit.report",
    "audit.slides",
    "blending.blend",
    "blending.ensemble",
    "blending.members",
    "blending.report",
    "blending.tables",
    "cli",
    "compare",
    "data.connection",
    "data.dataset",
    "data.decoding",
    "data.download",
    "data.duplicates",
    "data.folds",
    "data.image_files",
    "data.images",
    "data.importing",
    "data.kaggle_command",
    "data.pcam_sample",
    "data.pool",
    "data.show",
    "data.sources",
    "data.splits",
    "data.synthetic",
    "data.writer",
    "doctor",
    "errors",
    "evaluation",
    "explain.centre",
    "explain.explanation",
    "explain.report",
    "files",
    "heatmap.cells",
    "heatmap.outputs",
    "label_curve.band",
    "label_curve.budgets",
    "label_curve.report",
    "label_curve.rounds_gain",
    "label_curve.verdict",
    "models.foundation",
    "models.weights",
    "neighbors",
    "pseudo_labels.patch_history",
    "pseudo_labels.thresholds",
    "pseudo_labels.report",
    "pseudo_labels.selection",
    "pseudo_labels.selectors",
    "pseudo_labels.stopping",
    "pseudo_labels.thresholds",
    "pseudo_labels.verdict",
    "recipe",
    "records",
    "render",
    "report.cases",
    "report.figures",
    "report.galleries",
    "report.model_card",
    "report.operating_point",
    "report.report",
    "report.scores",
    "report.summary",
    "report.verdict",
    "results",
    "runs.begin",
    "runs.comparable",
    "runs.contents",
    "runs.lock",
    "runs.run",
    "search.report",
    "search.store",
    "slides",
    "tables",
    "terminal",
    "training.loggers",
    "units.attempts",
    "units.launch",
    "units.local",
    "units.ray_tasks",
    "units.run_unit",
    "units.slurm",
    "units.unit",
    "units.worker",
]
"""Files, and folders with all that is in them, that load without torch: loading it takes longer than most of these commands."""


LOOKED_UP = {
    ("pcam_ssl.runs.run", "pcam_ssl.api"),
    ("pcam_ssl.runs.run", "pcam_ssl.results"),
    ("pcam_ssl.data.dataset", "pcam_ssl.results"),
}
"""A Run offers verbs (`run.predict`), and Run and Dataset show themselves in a notebook: what does it is looked up when it is called."""


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, inside functions too; what only a type checker imports is left out."""
    found = set()
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "pcam_ssl":
            found |= {name if (name := f"{node.module}.{alias.name}") in FILES else node.module for alias in node.names}
    name = next(name for name, each in FILES.items() if each == path)
    return {other for other in found if (name, other) not in LOOKED_UP}


def running(node: ast.AST):
    """The nodes beneath, without `if TYPE_CHECKING`."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from running(child)


def part(module: str) -> str:
    return module.split(".")[1]


def test_every_folder_has_a_level():
    assert {part(name) for name in FILES if "." in name} == set().union(*LEVELS)


def test_imports_go_down():
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upward = [
        f"{name} imports {other}"
        for name, path in FILES.items()
        for other in imports(path)
        if "." in name and "." in other and level[part(other)] < level[part(name)]
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle():
    try:
        TopologicalSorter({name: imports(path) - {name} for name, path in FILES.items()}).prepare()
    except CycleError as circle:
        pytest.fail(" imports ".join(reversed(circle.args[1])))


def test_only_views_imports_albumentations():
    assert [path.name for path in FILES.values() if "import albumentations" in path.read_text()] == ["views.py"]


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


def test_torch_free_names_are_modules():
    assert {name for name in TORCH_FREE if f"pcam_ssl.{name}" not in FILES} == set()


@pytest.mark.processes
def test_torch_free_modules_load_no_torch():
    free = [f"pcam_ssl.{name}" for name in TORCH_FREE]
    names = [name for name in FILES if any(name == each or name.startswith(f"{each}.") for each in free)]
    assert len(names) > 100
    code = f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n    assert 'torch' not in sys.modules, name"
    fresh_python(code)
