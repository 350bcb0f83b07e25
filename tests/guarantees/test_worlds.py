"""Guarantee 5: processes and workers change no number."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from processes import ranks

from pcam_ssl.records import read_metrics
from pcam_ssl.tables import read_table

# Plain SGD on fp32: an adaptive optimizer divides rounding noise by gradients that are nearly zero.
SGD = ("optim.name=sgd", "optim.lr=0.005", "train.batch_size=8", "train.ema_decay=0.9", "predict.d4=true", "predict.random_views=1")


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("alone") / "run", *SGD)


@pytest.fixture
def argv(slides, tiny, tmp_path):
    def argv(*more):
        words = [word for setting in tiny(*SGD, *more) for word in ("--set", setting)]
        return ["baseline", "--data", str(slides), "--out", str(tmp_path / "run"), *words]

    return argv


def train_losses(folder) -> list[float]:
    return [event["train_loss"] for event in read_metrics(folder / "metrics.jsonl")]


def check_same(path, alone) -> None:
    for k in (0, 1):
        assert train_losses(path / f"fold-{k}") == pytest.approx(train_losses(alone.fold(k)), abs=1e-6)
    for name in ("oof", "test"):
        theirs, mine = read_table(path / f"{name}.parquet")[0], read_table(alone.path / f"{name}.parquet")[0]
        pd.testing.assert_frame_equal(theirs[["id", "fold", "label", "wsi"]], mine[["id", "fold", "label", "wsi"]])
        np.testing.assert_allclose(theirs.logit, mine.logit, rtol=0, atol=1e-4)
        np.testing.assert_allclose(theirs.view_std, mine.view_std, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [2, 4])
def test_processes_change_no_loss_and_no_prediction(start, argv, alone, tmp_path, size):
    together = [start(*argv(), env=environment) for environment in ranks(size)]
    ends = [process.wait() for process in together]
    assert [end.code for end in ends] == [0] * size, ends
    check_same(tmp_path / "run", alone)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == size


def test_only_the_leader_talks(start, argv):
    ends = [process.wait() for process in [start(*argv("train.epochs=1"), env=environment) for environment in ranks(2)]]
    assert "folds grouped by slides" in ends[0].err
    assert (ends[1].out, ends[1].err) == ("", "")


@pytest.mark.processes
def test_torchrun_starts_it(argv, alone, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pcam_ssl", *argv()]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Out of fold, folds grouped by slides") == 1
    check_same(tmp_path / "run", alone)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.processes
def test_workers_change_no_bit(train, alone, tmp_path):
    run = train(tmp_path / "run", *SGD, "train.workers=4")
    for name in ("oof", "test"):
        theirs, mine = read_table(run.path / f"{name}.parquet")[0], read_table(alone.path / f"{name}.parquet")[0]
        pd.testing.assert_frame_equal(theirs, mine, check_exact=True)


def test_a_batch_that_does_not_divide_is_told_once_by_all_and_nothing_is_written(start, argv, tmp_path):
    ends = [process.wait() for process in [start(*argv("train.batch_size=10"), env=environment) for environment in ranks(4)]]
    assert [end.code for end in ends] == [2] * 4
    assert ends[0].problems == ["train.batch_size is 10, which 4 processes cannot share evenly; make it a multiple of 4"]
    assert [end.err for end in ends[1:]] == [""] * 3
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_stops_all(start, argv):
    ends = [process.wait() for process in [start(*argv("optim.lr=1e30"), env=environment) for environment in ranks(2)]]
    assert [end.code for end in ends] == [2, 2]
    assert ends[0].problems[0].startswith("training stopped: the loss of step ")
    assert ends[1].err == ""


def test_ctrl_c_to_one_stops_all_and_one_process_goes_on(start, argv, alone, tmp_path):
    together = [start(*argv("train.checkpoint_s=0.01"), env=environment) for environment in ranks(2)]
    while not (tmp_path / "run" / "fold-0" / "last.pt").exists():
        assert together[0].process.is_alive(), together[0].err.read_text()
        time.sleep(0.005)
    together[1].signal(signal.SIGINT)
    ends = [process.wait() for process in together]
    assert [end.code for end in ends] == [130, 130]
    assert ends[0].problems[0].startswith("stopped at step ")
    assert start(*argv("train.checkpoint_s=0.01")).wait().code == 0
    check_same(tmp_path / "run", alone)
