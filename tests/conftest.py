"""Tiny datasets, recipes and runs that many tests share; commands in this process, or in real processes that can be killed."""

import os
import signal
import sys
import threading
from pathlib import Path

# Before anything imports torch: two threads on a busy core are ten times slower than one, and tests stay off the network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PCAM_SSL_DATA", None)
# A shell ignores Ctrl-C for what it starts in the background, and children inherit that; tests that interrupt need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
from processes import Finished, Started

pytest_plugins = ["costs", "feature_caches", "patch_files", "rounds_made", "search_run", "skips", "written_runs"]

TINY = (
    "cv.folds=2",
    "cv.inner_share=0.3",
    "model.name=test_resnet",
    "model.pretrained=false",
    "optim.lr=3e-3",
    "train.epochs=2",
    "train.batch_size=16",
    "train.precision=fp32",
    "train.device=cpu",
    "predict.d4=false",
    "score.resamples=100",
    "score.floor=false",
)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run tests that take a minute or more")
    parser.addoption("--write-golden", action="store_true", help="write the files of tests/golden anew instead of comparing")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes a minute or more; runs with --slow")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes a minute or more; pytest --slow runs it"))


@pytest.fixture(scope="session")
def tiny():
    """tiny("a.b=c", ...): settings of a recipe that trains in a second, changed by more settings."""

    def settings(*more: str) -> list[str]:
        changed = {setting.partition("=")[0] for setting in more}
        # L-BFGS has no learning rate.
        changed |= {"optim.lr"} if "optim.name=lbfgs" in more else set()
        return [setting for setting in TINY if setting.partition("=")[0] not in changed] + list(more)

    return settings


@pytest.fixture(scope="session")
def tiny_recipe(tiny):
    """tiny_recipe("a.b=c", ...): the Recipe of those settings."""
    from pcam_ssl.recipe.loading import load_recipe

    return lambda *more: load_recipe(None, tiny(*more))


@pytest.fixture(scope="session")
def slides(tmp_path_factory) -> Path:
    """A dataset of 8 train slides, 2 valid, 2 test, 8 patches of 32 px each; test has no labels."""
    from pcam_ssl.data.synthetic import write_synthetic

    path = tmp_path_factory.mktemp("data") / "slides"
    write_synthetic(path, slides=8, valid_slides=2, test_slides=2, patches=8, size_px=32, seed=4)
    return path


@pytest.fixture(scope="session")
def rewrite():
    """rewrite(dataset, path, change): a copy of a dataset whose patches table went through `change(patches)`; rows may be dropped."""
    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.writer import DatasetWriter

    def rewrite(source: Path, path: Path, change, sample_submission=None) -> Path:
        dataset = open_dataset(source)
        patches = change(dataset.patches.copy())
        with DatasetWriter(path, dataset.size_px, source="a changed copy", source_format="test") as writer:
            columns = {name: patches[name].array for name in ("split", "wsi", "x", "y")}
            columns |= {"ids": patches.id.array, "labels": patches.label.array}
            writer.append(np.asarray(dataset.pixels)[patches.row.to_numpy()], **columns)
            writer.sample_submission = sample_submission
        return path

    return rewrite


@pytest.fixture(scope="session")
def train(slides, tiny_recipe):
    """train(out, "a.b=c", ..., data=None, only=None): a tiny baseline in this process; returns the Run."""
    from pcam_ssl.api import baseline

    return lambda out, *more, data=None, only=None: baseline(data or slides, tiny_recipe(*more), out=out, fold=only)


@pytest.fixture(scope="session")
def finished(train, tmp_path_factory):
    """A finished tiny run with D4 views. Do not write into it."""
    return train(tmp_path_factory.mktemp("runs") / "finished", "predict.d4=true")


@pytest.fixture
def command(monkeypatch, capsys):
    """command("baseline", "--data", ...): the whole command line in this process; returns a Finished."""

    def command(*argv) -> Finished:
        from pcam_ssl.cli import main

        monkeypatch.setattr(sys, "argv", ["pcam-ssl", *map(str, argv)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Finished(code, *capsys.readouterr())

    return command


@pytest.fixture
def start(tmp_path_factory):
    """start("baseline", ..., env={}, before=None): begin a command in a process of its own; returns a Started, killed when the test ends."""
    running = []

    def start(*argv, env: dict[str, str] | None = None, before=None) -> Started:
        running.append(Started(argv, tmp_path_factory.mktemp("process"), env or {}, before))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.join()
