"""Frozen backbones under several processes and kills: they share the work of the cache, and change no number."""

import signal
import time

import numpy as np
import pandas as pd
import pytest
from processes import ranks

from pcam_ssl.tables import read_table

FROZEN = ("model.freeze_backbone=true", "cv.inner_folds=2", "predict.d4=true")
HEADS = {
    "linear": ("optim.name=lbfgs",),
    "mlp": ("model.head=mlp", "model.hidden=8", "optim.name=sgd", "optim.lr=0.005", "train.batch_size=8"),
}


@pytest.fixture
def argv(slides, tiny, tmp_path):
    """argv(*settings, out="run"): the words of a frozen run on the shared slides."""

    def argv(*more, out="run"):
        words = [word for setting in tiny(*FROZEN, *more) for word in ("--set", setting)]
        return ["baseline", "--data", str(slides), "--out", str(tmp_path / out), *words]

    return argv


def tables(path, *names):
    return [read_table(path / f"{name}.parquet")[0] for name in names]


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_two_processes_change_no_prediction(start, argv, tmp_path, head):
    alone = start(*argv(*head, out="alone"), env={"PCAM_SSL_CACHE": str(tmp_path / "one")}).wait()
    environments = [{**each, "PCAM_SSL_CACHE": str(tmp_path / "two")} for each in ranks(2)]
    ends = [process.wait() for process in [start(*argv(*head), env=each) for each in environments]]
    assert [end.code for end in (alone, *ends)] == [0, 0, 0], ends
    assert (ends[1].out, ends[1].err) == ("", "")
    for ours, theirs in zip(
        tables(tmp_path / "run", "oof", "test", "fold-0/inner"),
        tables(tmp_path / "alone", "oof", "test", "fold-0/inner"),
        strict=True,
    ):
        assert ours.id.equals(theirs.id)
        np.testing.assert_allclose(ours.logit, theirs.logit, rtol=0, atol=1e-4)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_killed_at_several_moments_it_ends_with_the_same_bits(start, argv, tmp_path, head):
    cache = {"PCAM_SSL_CACHE": str(tmp_path / "cache")}
    whole = start(*argv(*head, out="whole"), env=cache).wait()
    assert whole.code == 0, whole.err
    for part in ("fold-0/inner-0/model.safetensors", "fold-0/model.safetensors", "fold-1/inner.parquet"):
        process = start(*argv(*head), env=cache)
        while process.process.is_alive() and not (tmp_path / "run" / part).exists():
            time.sleep(0.002)
        process.signal(signal.SIGKILL)
        process.process.join()
    done = start(*argv(*head), env=cache).wait()
    assert done.code == 0, done.err
    names = ("oof", "test", "fold-0/inner", "fold-1/oof")
    for ours, theirs in zip(tables(tmp_path / "run", *names), tables(tmp_path / "whole", *names), strict=True):
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    weights = [(tmp_path / run / "fold-0" / "model.safetensors").read_bytes() for run in ("run", "whole")]
    assert weights[0] == weights[1]


def test_two_processes_make_one_forecast_and_stop_together(start, slides, argv, rewrite, tmp_path):
    """A pool of one patch brings nothing that can be seen: both end with the same code, and one tells."""
    data = rewrite(
        slides, tmp_path / "data", lambda patches: pd.concat([patches[patches.label.notna()], patches[patches.label.isna()][:1]])
    )
    cache = {"PCAM_SSL_CACHE": str(tmp_path / "cache")}
    words = argv(*HEADS["linear"])
    words[words.index("--data") + 1] = str(data)
    assert start(*words, env=cache).wait().code == 0
    rounds = ["pseudo-label", str(tmp_path / "run"), "--rounds", "1"]
    alone = start(*rounds, env=cache).wait()
    ends = [process.wait() for process in [start(*rounds, env={**each, **cache}) for each in ranks(2)]]
    assert [end.code for end in (alone, *ends)] == [2, 2, 2], ends
    assert ends[0].problems == alone.problems and "--anyway" in alone.problems[0]
    assert (ends[1].out, ends[1].err) == ("", "")
