"""A tiny metric run to search. Slides of the test split are unknown, and two of its patches are copies."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

TWIN = "twin"
"""Id of the test patch that is a copy of the first one."""

METRIC = (
    "method.name=metric",
    "method.projection=8",
    "neighbours.k=5",
    "train.batch_size=8",
    "train.epochs=1",
    "score.resamples=100",
)


@pytest.fixture(scope="session")
def unknown_slides(slides, rewrite, tmp_path_factory) -> Path:
    """The dataset `slides` without slides in the test split, whose first patch stands in it again as `TWIN`."""

    def change(patches: pd.DataFrame) -> pd.DataFrame:
        patches.loc[patches.split == "test", "wsi"] = None
        return pd.concat([patches, patches[patches.split == "test"].head(1).assign(id=TWIN)], ignore_index=True)

    return rewrite(slides, tmp_path_factory.mktemp("data") / "unknown", change)


@pytest.fixture(scope="session")
def trained_run(unknown_slides, tiny_recipe, tmp_path_factory) -> Path:
    """A finished metric run on `unknown_slides`, with a refit and no index. Do not write into it."""
    from pcam_ssl.cross_validation.cross_validate import metric_train

    return metric_train(tiny_recipe(*METRIC), unknown_slides, tmp_path_factory.mktemp("runs") / "metric").path


@pytest.fixture
def run_copy(trained_run, tmp_path) -> Path:
    """A copy of `trained_run`."""
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture(scope="session")
def indexed_run(trained_run, tmp_path_factory) -> Path:
    """Another copy, with its index. Do not write into it."""
    from pcam_ssl.search.search import search_space

    path = shutil.copytree(trained_run, tmp_path_factory.mktemp("runs") / "indexed")
    search_space(path, rebuild=True)
    return path
