"""What `make test-portable` asks of its runs; that the kernels asked for are run is printed by each of them."""

import importlib.util
import sys
import time
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "scripts" / "test_portable.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("portable_script", PATH)
    module = sys.modules["portable_script"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_kernel_thread_count_and_hash_seed_is_asked_for(script):
    columns = zip(*((each.blas, each.units, each.threads, each.hash_seed) for each in script.SETTINGS), strict=True)
    assert [set(column) for column in columns] == [
        {"Prescott", "Haswell", "Zen", "SkylakeX"},
        {"default", "avx2", "avx512"},
        {1, 2},
        {0, 1},
    ]


@pytest.mark.parametrize(
    ("flags", "kernels"),
    [({"sse2"}, ["Prescott"]), ({"avx2", "fma"}, ["Prescott", "Haswell"])],
)
def test_what_a_cpu_cannot_run_is_left_out(script, flags, kernels):
    assert [each.blas for each in script.SETTINGS if not each.lacks(flags)] == kernels


def test_a_setting_overrides_what_the_environment_asks_for(script, monkeypatch):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY"):
        monkeypatch.setenv(name, "other")
    asked = script.Setting("Prescott", "avx2", 2, 1).environment()
    assert "OPENBLAS_NUM_THREADS" not in asked
    wanted = {"OPENBLAS_CORETYPE": "Prescott", "OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONHASHSEED": "1"}
    assert wanted.items() <= asked.items()


def test_the_tests_that_it_names_are_there(script):
    root = PATH.parents[1]
    assert [name for names in script.TESTS.values() for name in names if not (root / name).exists()] == []


@pytest.mark.processes
def test_a_failing_test_fails_the_setting(script, tmp_path, capsys):
    broken = tmp_path / "test_broken.py"
    broken.write_text("import os\ndef test_seed(): assert os.environ['PYTHONHASHSEED'] == '1'\ndef test_broken(): assert 0\n")
    assert not script._passes(script.Setting(None, None, 1, 1), [str(broken), "--noconftest"])
    assert "1 failed, 1 passed" in capsys.readouterr().out


def test_every_setting_is_run_and_those_of_several_threads_alone(script, monkeypatch):
    running, seen = set(), []

    def passes(setting, tests):
        running.add(setting)
        time.sleep(0.05)
        seen.append((setting, frozenset(running) if setting.threads > 1 else None))
        running.discard(setting)
        return setting.hash_seed == 1

    monkeypatch.setattr(script, "_passes", passes)
    settings = list(script.SETTINGS)
    assert sorted(script._run(settings, [])) == sorted(each.hash_seed == 1 for each in settings)
    assert {each for each, _ in seen} == set(settings) and len(seen) == len(settings)
    assert all(beside == {each} for each, beside in seen if each.threads > 1)


@pytest.mark.parametrize("passed", [[True, True, True], [True, False, True]])
def test_one_setting_that_fails_fails_all(script, monkeypatch, passed):
    monkeypatch.setattr(script, "_run", lambda *_: passed)
    monkeypatch.setattr(script, "_flags", lambda: set().union(*script.NEEDS.values()))
    monkeypatch.setattr(sys, "argv", ["test_portable.py", "--short"])
    assert script.main() == int(not all(passed))
