"""A tiny round 0, and pseudo-label rounds on it with a selection that always adds something."""

import shutil
from pathlib import Path

import pytest

ROUND_0 = ("data.label_budget=56", "train.batch_size=8")
NEVER_STOP = (
    "pseudo.stop_worse=false",
    "pseudo.stop_share=null",
    "pseudo.stop_ratio=null",
    "pseudo.stop_flips=null",
    "pseudo.headroom=false",
)
SELECTION = (
    "pseudo.precision=null",
    "pseudo.k_best=5",
    "pseudo.balance=none",
    "pseudo.planted_share=0",
    "pseudo.control=false",
    *NEVER_STOP,
)


@pytest.fixture(scope="session")
def round_0(train, tmp_path_factory) -> Path:
    """A finished run of 2 folds with 56 of 80 labels: the others and 16 test patches are its pools. Do not write into it."""
    return train(tmp_path_factory.mktemp("rounds") / "round-0", *ROUND_0).path


@pytest.fixture(scope="session")
def make_rounds():
    """make_rounds(run, n, "a.b=c", ..., pooled=False, out=None): the verdict of n rounds under SELECTION, changed by more settings."""
    from pcam_ssl.api import pseudo_label

    def make_rounds(run: Path, n: int, *more: str, **options) -> dict:
        return pseudo_label(run, rounds=n, settings=selection(*more), **options)

    return make_rounds


@pytest.fixture(scope="session")
def selection_words():
    """selection_words("a.b=c", ...): the same settings as words of a command line."""
    return lambda *more: [word for setting in selection(*more) for word in ("--set", setting)]


@pytest.fixture
def fresh(round_0, tmp_path) -> Path:
    """A copy of `round_0`."""
    return shutil.copytree(round_0, tmp_path / "run")


@pytest.fixture(scope="session")
def two_rounds(round_0, make_rounds, tmp_path_factory) -> Path:
    """A copy of `round_0` with two rounds in it. Do not write into it."""
    path = shutil.copytree(round_0, tmp_path_factory.mktemp("rounds") / "run")
    make_rounds(path, 2)
    return path


@pytest.fixture
def two_rounds_copy(two_rounds, tmp_path) -> Path:
    """A copy of `two_rounds`."""
    return shutil.copytree(two_rounds, tmp_path / "run")


def selection(*more: str) -> list[str]:
    changed = {setting.partition("=")[0] for setting in more}
    return [setting for setting in SELECTION if setting.partition("=")[0] not in changed] + list(more)
