"""Tiny datasets, recipes and runs that many tests share; commands in this process, or in real processes that can be killed."""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

# Before anything imports torch: two threads on a busy core are ten times slower than one, and tests stay off the network.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PCAM_SSL_DATA", None)

import numpy as np
import pytest

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


@pytest.fixture(scope="session")
def tiny():
    """tiny("a.b=c", ...): settings of a recipe that trains in a second, changed by more settings."""

    def settings(*more: str) -> list[str]:
        changed = {setting.partition("=")[0] for setting in more}
        return [setting for setting in TINY if setting.partition("=")[0] not in changed] + list(more)

    return settings


@pytest.fixture(scope="session")
def tiny_recipe(tiny):
    """tiny_recipe("a.b=c", ...): the Recipe of those settings."""
    from pcam_ssl.recipe_files import load_recipe

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
    from pcam_ssl.data.store import open_dataset
    from pcam_ssl.data.writer import DatasetWriter

    def rewrite(source: Path, path: Path, change, sample_submission=None) -> Path:
        dataset = open_dataset(source)
        patches = change(dataset.patches.copy())
        with DatasetWriter(path, dataset.size_px, source="a changed copy", source_format="test") as writer:
            columns = {name: patches[name].array for name in ("ids", "split", "labels", "wsi", "x", "y") if name in patches}
            columns |= {"ids": patches.id.array, "labels": patches.label.array}
            writer.append(np.asarray(dataset.pixels)[patches.row.to_numpy()], **columns)
            writer.sample_submission = sample_submission
        return path

    return rewrite


@pytest.fixture(scope="session")
def train(slides, tiny_recipe):
    """train(out, "a.b=c", ..., data=None, only=None): a tiny baseline in this process; returns the Run."""
    from pcam_ssl.workflows.baseline import baseline

    return lambda out, *more, data=None, only=None: baseline(tiny_recipe(*more), data or slides, out, only)


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


@dataclass
class Finished:
    """Exit code and texts of a command that ended."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> list[str]:
        """The lines of `pcam-ssl: ...` on stderr."""
        return [line.removeprefix("pcam-ssl: ") for line in self.err.splitlines() if line.startswith("pcam-ssl: ")]


class Started:
    """A `pcam-ssl` command in a process of its own."""

    def __init__(self, context, argv, folder: Path, env: dict[str, str]):
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        self.process = context.Process(target=_run_command, args=([str(word) for word in argv], str(self.out), str(self.err), env))
        self.process.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended already."""
        if self.process.is_alive():
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = 120) -> Finished:
        """Its end; a command that hangs is killed and fails the test."""
        self.process.join(timeout_s)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {timeout_s} s; stderr: {self.err.read_text()}")
        return Finished(self.process.exitcode, self.out.read_text(), self.err.read_text())


@pytest.fixture(scope="session")
def _server():
    # Importing torch and timm takes longer than a tiny training: processes are forked from one that has imported them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcam_ssl.workflows.baseline", "pcam_ssl.workflows.predict"])
    return context


@pytest.fixture
def start(_server, tmp_path_factory):
    """start("baseline", ..., env={}): begin a command in a process of its own; returns a Started, killed when the test ends."""
    running = []

    def start(*argv, env: dict[str, str] | None = None) -> Started:
        running.append(Started(_server, argv, tmp_path_factory.mktemp("process"), env or {}))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.join()


def _run_command(argv: list[str], out: str, err: str, env: dict[str, str]) -> None:
    for number, path in ((1, out), (2, err)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    os.environ.update(env)
    sys.argv = ["pcam-ssl", *argv]
    from pcam_ssl.cli import main

    main()
