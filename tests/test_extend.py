"""docs/extend.md: its diffs apply to a copy of the package and add what they say; a package of one's own is found by its entry points."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import DOCS, ROOT

from pcam_ssl.errors import UserError
from pcam_ssl.recipe import extensions
from pcam_ssl.recipe.loading import load_recipe

PAGE = (DOCS / "extend.md").read_text(encoding="utf-8")


def diff_of(heading: str) -> str:
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.search(r"```diff\n(.*?)```", section, re.DOTALL)[1]


def apply(diff: str, folder: Path) -> set[str]:
    """Make the changes of a diff whose hunks are found by their text, not by their line numbers; the files that changed."""
    changed = set()
    for part in re.split(r"^--- a/.*\n\+\+\+ b/", diff, flags=re.MULTILINE)[1:]:
        name, _, hunks = part.partition("\n")
        text = (folder / name).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*@@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines()
            before = "\n".join(line[1:] for line in lines if line[:1] != "+")
            after = "\n".join(line[1:] for line in lines if line[:1] != "-")
            assert text.count(before) == 1, f"{name} has {text.count(before)} places like\n{before}"
            text = text.replace(before, after)
        (folder / name).write_text(text, encoding="utf-8")
        changed.add(name)
    return changed


def run(code: str, folder: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SELECTOR = """
import numpy as np, pandas as pd
from pcam_ssl.pseudo_labels.selection import decide
from pcam_ssl.recipe.loading import load_recipe
options = load_recipe(None, ["pseudo.precision=null", "pseudo.balance=none", "pseudo.top_share=1", "pseudo.knn_confidence=0.9"]).pseudo
pool = pd.DataFrame({"id": ["a", "b"], "wsi": "s", "fold": 0, "logit": [3.0, 3.0], "prob": [0.95, 0.95], "view_std": 0.0, "knn_prob": [0.99, 0.5], "disagreement": 0.0, "view_hash": pd.NA})
decisions, facts = decide(pool, pool.assign(label=1), options, None, "digest")
print(facts["left_out"]["knn_confidence"], decisions.set_index("id").reason["b"])
"""
BLEND = """
import numpy as np
from pcam_ssl.blending.ensemble import member_weights
labels = np.array([0, 1, 0, 1])
print(member_weights("auroc", np.array([[-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 2.0]]), labels).round(2).tolist())
"""
LOSS = """
import torch
from pcam_ssl.methods.metric import EMBEDDING_LOSSES
from pcam_ssl.recipe.loading import load_recipe
method = load_recipe(None, ["method.name=metric", "method.loss=contrastive", "method.slide_aware=true"]).method
loss = EMBEDDING_LOSSES[method.loss](method.model_dump(), 2)
print(float(loss(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))))
"""

SECTION = """
from types import SimpleNamespace
import pandas as pd
from pcam_ssl.render.text import terminal
from pcam_ssl.report.report import SECTIONS
make = {key: make for key, _, make, _ in SECTIONS}["agreement"]
patches = pd.DataFrame({"prob": [0.9, 0.9], "label": [1, 0], "view_std": [0.1, 0.4]})
facts = SimpleNamespace(oof=patches, labelled=patches)
print(terminal([make(SimpleNamespace(facts=facts))]).splitlines()[-2:])
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("heading", "code", "expected"),
    [
        ("A selector of pseudo-labels", SELECTOR, "1 kNN prob is between 0.1 and 0.9 (pseudo.knn_confidence)"),
        ("A blend method", BLEND, "[0.57, 0.43]"),
        ("A metric loss", LOSS, "0.0"),
        ("A section of the report", SECTION, "['right     0.100', 'wrong     0.400']"),
    ],
)
def test_a_diff_applies_to_two_files_at_most_and_works(heading, code, expected, tmp_path):
    shutil.copytree(ROOT / "pcam_ssl", tmp_path / "pcam_ssl", ignore=shutil.ignore_patterns("__pycache__"))
    assert len(apply(diff_of(heading), tmp_path)) <= 2
    assert run(code, tmp_path) == expected


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder with the package of the page, installed as far as entry points go."""
    (tmp_path / "mine.py").write_text(re.search(r'```py title="mine.py"\n(.*?)```', PAGE, re.DOTALL)[1])
    entries = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries.replace('project.entry-points."', "").replace('"]', "]").replace('"', ""))
    return tmp_path


@pytest.fixture
def installed(mine, monkeypatch):
    monkeypatch.syspath_prepend(str(mine))
    extensions._entry_points.cache_clear()
    yield
    extensions._entry_points.cache_clear()
    sys.modules.pop("mine", None)


def test_the_keys_of_an_outside_method_are_checked(installed):
    assert load_recipe(None, ["method.name=smoothed"]).method.smooth == 0.1
    with pytest.raises(UserError, match=r"unknown key method\.smoth\. Did you mean smooth\?"):
        load_recipe(None, ["method.name=smoothed", "method.smoth=0.2"])
    with pytest.raises(UserError, match=r"method\.smooth: .*less than 0\.5"):
        load_recipe(None, ["method.name=smoothed", "method.smooth=0.7"])


def test_an_outside_selector_has_a_key_under_pseudo(installed):
    from pcam_ssl.pseudo_labels.selectors import SELECTORS, selectors_in_use

    options = load_recipe(None, ["pseudo.least_logit=1.5"]).pseudo
    assert list(selectors_in_use(options))[-1] == "least_logit" and "least_logit" not in SELECTORS
    with pytest.raises(UserError, match=r"pseudo\.least_logit: .*greater than 0"):
        load_recipe(None, ["pseudo.least_logit=-1"])


def test_without_its_package_a_name_is_unknown():
    with pytest.raises(UserError, match=r"method: .*'supervised'"):
        load_recipe(None, ["method.name=smoothed"])
    with pytest.raises(UserError, match=r"unknown key pseudo\.least_logit\."):
        load_recipe(None, ["pseudo.least_logit=1"])


def test_a_package_that_cannot_be_imported_is_named(installed, mine):
    (mine / "mine.py").write_text("import not_there")
    with pytest.raises(UserError, match=r"smoothed: mine:Smoothed.* cannot be loaded \(No module named 'not_there'\)"):
        load_recipe(None, ["method.name=smoothed"])


def test_a_run_by_outside_method_and_selector(installed, train, tmp_path):
    run = train(tmp_path / "run", "method.name=smoothed", "method.smooth=0.05", "pseudo.least_logit=0.5")
    assert run.recipe.method.smooth == 0.05
    assert run.recipe.pseudo.least_logit == 0.5
