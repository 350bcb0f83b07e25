"""A run of two folds as units that train for some seconds and save their state all the time, and the same run uninterrupted."""

import pandas as pd
import pytest

import pcam_ssl as pcam
from pcam_ssl.tables import read_table


@pytest.fixture(scope="session")
def long(tiny):
    """Settings of the units that are interrupted."""
    return tiny(
        *("train.epochs=3", "train.batch_size=4", "train.samples_per_epoch=128"),
        *("train.checkpoint_s=0.05", "train.ema_decay=0.9", "model.drop_rate=0.3"),
    )


@pytest.fixture(scope="session")
def uninterrupted(slides, long, tmp_path_factory):
    """The run of those settings, trained in one go."""
    return pcam.baseline(slides, "smoke", long, out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def units(slides, long, tmp_path):
    """The file of units of that run, planned into the test's own folder: `runs/smoke` in it."""
    pcam.plan("smoke", slides, long, out=tmp_path / "runs", file=tmp_path / "units.jsonl")
    return tmp_path / "units.jsonl"


@pytest.fixture(scope="session")
def equals_uninterrupted(uninterrupted):
    """equals_uninterrupted(path): fail unless the run at `path` has the predictions of the uninterrupted one, to the bit."""

    def check(path) -> None:
        for name in ("oof", "test", "fold-0/oof", "fold-1/test"):
            pd.testing.assert_frame_equal(
                read_table(path / f"{name}.parquet")[0],
                read_table(uninterrupted.path / f"{name}.parquet")[0],
                check_exact=True,
                obj=name,
            )

    return check
