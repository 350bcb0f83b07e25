"""A run that has been begun and holds nothing else."""

import pytest

from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.runs.begin import begin_run, find_run

DATASET = {"path": "data/a", "digest": "a" * 64}


@pytest.fixture
def begun(tmp_path):
    run = find_run(tmp_path / "run", load_recipe("smoke"), DATASET, "baseline")
    begin_run(run, load_recipe("smoke"), DATASET, "baseline")
    return run
