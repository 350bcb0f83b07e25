"""Guarantees 4 and 5 where the device computes views: an interruption and several processes change no view."""

import json
import signal
import time

import numpy as np
import pandas as pd
import pytest
from processes import in_every_rank, ranks

from pcam_ssl.data.batches import TrainStream, load
from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.pixels import DevicePixels, Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.views import Views
from pcam_ssl.records import read_metrics
from pcam_ssl.tables import read_table

DEVICE = ("train.data=device", "views.policy=strong")
# Plain SGD on fp32: an adaptive optimizer divides rounding noise by gradients that are nearly zero.
SGD = ("train.data=device", "optim.name=sgd", "optim.lr=0.005", "train.batch_size=8", "train.ema_decay=0.9")
LONG = (*DEVICE, "train.epochs=4", "train.batch_size=4", "train.checkpoint_s=0.05", "train.ema_decay=0.9", "model.drop_rate=0.3")


def words(settings) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def views_of(world, path: str):
    """Drawn parameters and rendered patches of some steps of this process's share."""
    pixels = DevicePixels(Pixels(path), world.device)
    pixels.copy(np.arange(40))
    stream = TrainStream(pixels, np.arange(40), np.zeros(40), Shuffled(40, 16, 5), Views("strong"), 5, world.rank, world.size)
    drawn = [stream[step]["pixels"].parameters.numpy() for step in range(6)]
    return drawn, [batch["pixels"].numpy() for batch in load(stream, range(6), 0, world.device)]


@pytest.mark.processes
@pytest.mark.parametrize("size", [2, 4])
def test_processes_draw_the_same_views_and_compute_the_same_pixels(slides, size):
    parameters, patches = (np.stack(each) for each in in_every_rank(1, views_of, str(slides / PIXELS))[0])
    together = in_every_rank(size, views_of, str(slides / PIXELS))
    assert np.array_equal(np.concatenate([np.stack(drawn) for drawn, _ in together], axis=1), parameters)
    apart = np.abs(np.concatenate([np.stack(shown) for _, shown in together], axis=1).astype(int) - patches)
    assert apart.max() <= 1 and (apart > 0).mean() < 1e-3


def test_two_processes_train_the_same_network(start, train, slides, tiny, tmp_path):
    """As under torchrun, which tests/guarantees/test_worlds.py starts."""
    alone = train(tmp_path / "alone", *SGD)
    argv = ["baseline", "--data", slides, "--out", tmp_path / "run", *words(tiny(*SGD))]
    ends = [each.wait() for each in [start(*argv, env=environment) for environment in ranks(2)]]
    assert [end.code for end in ends] == [0, 0], ends[0].err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["processes"] == 2
    for k in (0, 1):
        theirs, mine = (
            [event["train_loss"] for event in read_metrics(path / f"fold-{k}" / "metrics.jsonl")]
            for path in (tmp_path / "run", alone.path)
        )
        assert theirs == pytest.approx(mine, abs=1e-6)
    logits = [read_table(path / "oof.parquet")[0].logit for path in (tmp_path / "run", alone.path)]
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-4)


def test_an_interrupted_run_ends_with_the_same_bits(start, train, slides, tiny, tmp_path):
    whole = train(tmp_path / "whole", *LONG)
    argv = ["baseline", "--data", slides, "--out", tmp_path / "run", *words(tiny(*LONG))]
    first = start(*argv)
    end = time.monotonic() + 120
    while first.process.is_alive() and not (tmp_path / "run" / "fold-0" / "previous.pt").exists():
        assert time.monotonic() < end
        time.sleep(0.005)
    first.signal(signal.SIGINT)
    assert first.wait().code == 130
    assert start(*argv).wait().code == 0
    for name in ("oof", "test"):
        tables = [read_table(path / f"{name}.parquet")[0] for path in (tmp_path / "run", whole.path)]
        pd.testing.assert_frame_equal(*tables, check_exact=True, obj=name)
