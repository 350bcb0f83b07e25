"""The wheel works where only it is installed: its code, its command, its recipes."""

import os
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], cwd=ROOT, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment that holds the wheel alone; it borrows the packages the wheel needs, which take minutes to install."""
    folder = tmp_path_factory.mktemp("environment") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, cwd=ROOT, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return folder


def run(environment, *words, cwd):
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([environment / "bin" / words[0], *words[1:]], cwd=cwd, env=clean, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_every_module_and_template(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "pcam_ssl").rglob("*.py")}
    modules |= {str(path.relative_to(ROOT)) for path in (ROOT / "pcam_ssl" / "render" / "templates").iterdir()}
    assert modules <= set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_every_recipe_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "pcam_ssl/py.typed" in names
    recipes = {path.name for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipes and {f"pcam_ssl/recipes/{name}" for name in recipes} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "scripts"))]


def test_the_wheel_is_what_is_imported(environment, tmp_path):
    place = run(environment, "python", "-c", "import pcam_ssl; print(pcam_ssl.__file__)", cwd=tmp_path)
    assert place.startswith(str(environment))


def test_the_installed_command_lists_the_recipes(environment, tmp_path):
    listed = run(environment, "pcam-ssl", "recipes", "list", cwd=tmp_path)
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert path.stem in listed
