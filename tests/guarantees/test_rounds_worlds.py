"""Guarantee 5 for rounds: processes change no decision and no prediction."""

import shutil
import time

import numpy as np
import pandas as pd
import pytest
from processes import in_every_rank, ranks
from round_outputs import decisions, table, verdict

from pcam_ssl.distributed import World
from pcam_ssl.records import read_metrics

# Plain SGD on fp32: an adaptive optimizer divides rounding noise by gradients that are nearly zero. One epoch: in later steps rounding
# noise meets the kink of a ReLU now and then, and is 1e-5 of a logit afterwards.
SGD = (
    "optim.name=sgd",
    "optim.lr=0.005",
    "train.epochs=1",
    "train.batch_size=8",
    "pseudo.planted_share=0.3",
    "pseudo.weight_scale=0.5",
    "pseudo.control=true",
)
DECIDED = ["id", "fold", "decision", "label", "change"]


@pytest.fixture(scope="module")
def alone(round_0, make_rounds, tmp_path_factory):
    path = shutil.copytree(round_0, tmp_path_factory.mktemp("alone") / "run")
    make_rounds(path, 2, *SGD)
    return path


@pytest.fixture
def together(start, selection_words):
    """together(run, "a.b=c", ...): the ends of two processes that do two rounds on a run together."""

    def together(run, *more):
        words = ["pseudo-label", run, "--rounds", 2, *selection_words(*SGD, *more)]
        return [process.wait() for process in [start(*words, env=environment) for environment in ranks(2)]]

    return together


def losses(run, number, fold) -> list[float]:
    return [event["train_loss"] for event in read_metrics(run / f"round-{number}" / f"fold-{fold}" / "metrics.jsonl")]


def test_two_processes_decide_and_predict_as_one(together, alone, fresh):
    ends = together(fresh)
    assert [end.code for end in ends] == [0, 0], ends
    assert "Verdict" in ends[0].out
    assert (ends[1].out, ends[1].err) == ("", "")
    for number in (1, 2):
        for fold in (0, 1):
            mine, theirs = (decisions(path, number, fold) for path in (fresh, alone))
            pd.testing.assert_frame_equal(mine[DECIDED], theirs[DECIDED])
            np.testing.assert_allclose(mine.logit, theirs.logit, rtol=0, atol=1e-5)
    for folder in ("round-1", "round-2", "control"):
        for name in ("oof", "test"):
            mine, theirs = (table(path / folder / f"{name}.parquet") for path in (fresh, alone))
            np.testing.assert_allclose(mine.logit, theirs.logit, rtol=0, atol=1e-5)
    planted = [verdict(path)["planted"]["classes"] for path in (fresh, alone)]
    assert planted[0] == planted[1]


@pytest.mark.processes
def test_decisions_written_while_a_process_was_late_do_not_make_it_skip_a_step(round_0, fresh, slides, make_rounds):
    # With the pool predicted before, the leader decides without ever waiting for the others.
    make_rounds(fresh, 1, "pseudo.stop_share=0.99")
    shutil.rmtree(fresh / "round-1")
    answers = in_every_rank(2, select_late, str(fresh))
    assert answers[0] == answers[1]
    assert (fresh / "round-1" / "fold-1" / "selection.json").exists()


def select_late(world: World, run: str) -> list[dict]:
    from pathlib import Path

    from rounds_made import selection

    from pcam_ssl.pseudo_labels.labeling import select
    from pcam_ssl.pseudo_labels.rounds import _begin
    from pcam_ssl.pseudo_labels.setup import open_rounds
    from pcam_ssl.runs.run import Run

    rounds = open_rounds(Run(Path(run)), None, selection(), Path(run))
    world.run_on_main(lambda: _begin(rounds, 1))
    time.sleep(0.5 * world.rank)
    return select(rounds, 1)


def test_an_error_is_printed_once(together, fresh):
    (fresh / "fold-1" / "inner.parquet").unlink()
    ends = together(fresh)
    assert [end.code for end in ends] == [2, 2]
    assert len(ends[0].problems) == 1 and ends[1].err == ""


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(together, fresh):
    ends = together(fresh, "train.batch_size=9")
    assert [end.code for end in ends] == [2, 2]
    assert ends[0].problems == ["train.batch_size is 9, which 2 processes cannot share evenly; make it a multiple of 2"]
    assert not (fresh / "round-1").exists() and not (fresh / "planted").exists()
