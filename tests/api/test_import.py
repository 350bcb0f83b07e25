"""What `import pcam_ssl` costs and names."""

import importlib
import subprocess
import sys
import time

import pytest

import pcam_ssl as pcam

HEAVY = ("torch", "pandas", "numpy", "sklearn", "timm", "typer", "rich")


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.processes
def test_the_import_loads_nothing_heavy():
    printed = fresh_python(f"import sys, pcam_ssl; dir(pcam_ssl); print([name for name in {HEAVY} if name in sys.modules])")
    assert printed.strip() == "[]"


@pytest.mark.processes
def test_the_import_takes_less_than_a_fifth_of_a_second():
    code = "import time; begun = time.perf_counter(); import pcam_ssl; print(time.perf_counter() - begun)"
    assert min(float(fresh_python(code)) for _ in range(3)) < 0.2


@pytest.mark.processes
def test_naming_a_function_loads_no_torch():
    assert fresh_python("import sys, pcam_ssl; pcam_ssl.train; pcam_ssl.Run; print('torch' in sys.modules)").strip() == "False"


@pytest.mark.parametrize("name", pcam.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    found = getattr(pcam, name)
    assert callable(found) and found.__doc__


def test_dir_lists_the_public_names():
    assert set(pcam.__all__) < set(dir(pcam))


@pytest.mark.parametrize("name", [name for name in ("audit", "compare", "doctor", "explain", "export", "report", "search")])
def test_importing_a_folder_does_not_hide_the_function_of_its_name(name):
    importlib.import_module(f"pcam_ssl.{name}")
    assert getattr(pcam, name).__module__ == "pcam_ssl.api"


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(AttributeError, match=r"Did you mean .*search"):
        _ = pcam.serach


def test_each_command_has_a_function_of_its_name():
    import typer

    from pcam_ssl.cli import app
    from pcam_ssl.cli.data import app as data

    named = {*typer.main.get_command(app).commands, *typer.main.get_command(data).commands} - {"data", "demo"}
    functions = {{"import": "import_dataset"}.get(name, name.replace("-", "_")) for name in named}
    assert functions - set(pcam.__all__) == set()


def test_the_time_of_a_second_naming_is_nothing():
    pcam.train  # noqa: B018
    begun = time.perf_counter()
    pcam.train  # noqa: B018
    assert time.perf_counter() - begun < 0.01
