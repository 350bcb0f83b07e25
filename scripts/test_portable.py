"""Run the numeric tests again with the kernels of other CPUs: `make test-portable`, the short form `make test-portable SHORT=1`.

BLAS, torch, numpy and FAISS choose their kernels by the CPU, and kernels sum in different orders. Each setting below asks for others
than this CPU's, and runs the tests in a process of its own; what the libraries say they run is printed, for they may run another.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
AVX2, AVX512 = {"avx2", "fma"}, {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
NEEDS = {"Prescott": set(), "Haswell": AVX2, "Zen": AVX2, "SkylakeX": AVX512, "default": set(), "avx2": AVX2, "avx512": AVX512}
"""Flags of /proc/cpuinfo that a CPU must have to run a kernel."""

OTHER_LIBRARIES = {
    "default": {"FAISS_SIMD_LEVEL": "NONE", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
    "avx2": {"FAISS_SIMD_LEVEL": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {},
}
"""ATEN_CPU_CAPABILITY sets torch's own loops; its convolutions, its matrix products and FAISS have switches of their own."""

TESTS = {
    False: [
        *(
            f"tests/{name}"
            for name in ("audit", "blending", "compare", "data", "evaluation", "explain", "methods", "models", "neighbors")
        ),
        *("tests/pseudo_labels", "tests/cross_validation/test_aggregate.py", "tests/guarantees/test_golden.py"),
    ],
    True: [
        *(f"tests/blending/test_{name}.py" for name in ("blend", "blend_weights", "blend_nested")),
        *(f"tests/evaluation/test_{name}.py" for name in ("bootstrap", "resampled_counts", "calibration", "metrics")),
        *(f"tests/neighbors/test_{name}.py" for name in ("knn", "neighbors", "retrieval")),
        *(f"tests/data/test_{name}.py" for name in ("statistics", "stain", "splits", "inner")),
        *("tests/audit/test_image_correlation.py", "tests/explain/test_centre_means.py", "tests/pseudo_labels/test_ranked_pool.py"),
        *("tests/pseudo_labels/test_caps.py", "tests/cross_validation/test_aggregate.py"),
    ],
}
"""By short or not."""

LEFT_OUT = {False: "not processes and not every_process and not umap", True: "not cover"}
"""Of those, by short or not: tests that start processes and a slow one of another package's numbers; simulations of coverage."""


@dataclass(frozen=True)
class Setting:
    """What is asked of one run; None: what the libraries choose themselves."""

    blas: str | None
    units: str | None
    threads: int
    hash_seed: int

    @property
    def name(self) -> str:
        """In a line."""
        return f"BLAS {self.blas or 'own'}, vector units {self.units or 'own'}, threads {self.threads}, hash seed {self.hash_seed}"

    def lacks(self, flags: set[str]) -> set[str]:
        """Flags that the kernels need and this CPU does not have."""
        return {flag for kernel in (self.blas, self.units) if kernel for flag in NEEDS[kernel] - flags}

    def environment(self) -> dict[str, str]:
        """This process's environment, changed to ask for the setting."""
        changed = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"(OPENBLAS|MKL|GOTO)_NUM_THREADS$|PYTEST_ADDOPTS$", name)
        }
        changed |= {"OMP_NUM_THREADS": str(self.threads), "PYTHONHASHSEED": str(self.hash_seed), "PYTHONPATH": str(ROOT)}
        if self.blas:
            changed["OPENBLAS_CORETYPE"] = self.blas
        if self.units:
            changed |= {"ATEN_CPU_CAPABILITY": self.units, **OTHER_LIBRARIES[self.units]}
            changed["NPY_DISABLE_CPU_FEATURES"] = " ".join(_numpy_units_beyond(self.units))
        return changed


# Every value at least once; where a CPU cannot run the last, the first two still hold both thread counts and both seeds.
SETTINGS = (
    Setting("Prescott", "default", 1, 0),
    Setting("Haswell", "avx2", 2, 1),
    Setting("SkylakeX", "avx512", 1, 1),
    Setting("Zen", "avx512", 2, 0),
)
OWN = (Setting(None, None, 1, 0), Setting(None, None, 2, 1))
"""Where the CPU is of another family and knows none of the kernels."""


def main() -> int:
    """0 where every setting passes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="three settings, and only the tests nearest to the arithmetic")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("tests", nargs="*", help="pytest's arguments instead of the numeric tests")
    options, more = parser.parse_known_args()
    tests = [*options.tests, *more] or [*TESTS[options.short], "-k", LEFT_OUT[options.short]]
    if options.inside:
        return _inside(tests)
    wanted = OWN if (flags := _flags()) is None else SETTINGS[:3] if options.short else SETTINGS
    here = []
    for setting in wanted:
        if missing := setting.lacks(flags or set()):
            print(f"left out: {setting.name} (this CPU has no {', '.join(sorted(missing))})", flush=True)
        else:
            here.append(setting)
    return int(not all(_run(here, tests)))


def _run(settings: list[Setting], tests: list[str]) -> list[bool]:
    """Whether each setting passes. Those of one thread run side by side, a core each; those of several would slow each other down."""
    alone = [setting for setting in settings if setting.threads == 1]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        passed = list(pool.map(lambda setting: _passes(setting, tests), alone))
    return passed + [_passes(setting, tests) for setting in settings if setting.threads > 1]


def _flags() -> set[str] | None:
    """Flags of an x86-64 CPU, None for another."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    info = Path("/proc/cpuinfo")
    found = re.search(r"^flags\s*:(.*)$", info.read_text(), re.M) if info.exists() else None
    return set(found[1].split()) if found else set()


def _numpy_units_beyond(units: str) -> list[str]:
    """Vector units that numpy finds here and would use; the names differ between its versions."""
    import numpy as np

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    return [name for name in found if units == "default" or (units == "avx2" and re.match("AVX512|X86_V4", name))]


def _passes(setting: Setting, tests: list[str]) -> bool:
    """Run the tests in one setting, print a line and what failed; whether nothing did."""
    begun = time.monotonic()
    command = [sys.executable, __file__, "--inside", *tests]
    done = subprocess.run(command, cwd=ROOT, env=setting.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    kernels, _, told = done.stdout.partition("\n")
    last = told.strip().rpartition("\n")[2]
    line = f"{setting.name}: {last} in {time.monotonic() - begun:.0f} s; ran {kernels}\n"
    # One write: settings run side by side.
    sys.stdout.write(line + (f"{told}\n" if done.returncode else ""))
    sys.stdout.flush()
    return not done.returncode


def _inside(tests: list[str]) -> int:
    """In the process of a setting: load what computes, print what it runs, then run the tests."""
    import faiss
    import numpy as np
    import pytest
    import scipy.linalg  # noqa: F401 scipy brings a BLAS of its own
    import sklearn.cluster  # noqa: F401
    import torch
    from threadpoolctl import threadpool_info

    blas = {
        f"{Path(pool['filepath']).parent.name.partition('.')[0]} {pool['architecture']} x {pool['num_threads']}"
        for pool in threadpool_info()
        if pool["internal_api"] == "openblas"
    }
    runs = {
        "blas": sorted(blas),
        "torch": f"{torch.backends.cpu.get_cpu_capability()} x {torch.get_num_threads()}",
        "numpy": np.show_config(mode="dicts")["SIMD Extensions"].get("found", []),
    }
    if hasattr(faiss, "SIMDConfig"):
        runs["faiss"] = faiss.SIMDConfig.get_level_name()
    print(json.dumps(runs), flush=True)
    return pytest.main(["-p", "no:cacheprovider", "-p", "no:warnings", "--tb=short", *tests])


if __name__ == "__main__":
    sys.exit(main())
