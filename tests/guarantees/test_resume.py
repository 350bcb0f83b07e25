"""Guarantee 4: kill it at any moment; the same command continues and ends with the same predictions to the bit."""

import json
import random
import signal

import pandas as pd
import pytest
from processes import wait_for, wait_until

from pcam_ssl.records import read_metrics
from pcam_ssl.tables import read_table

LONG = ("train.epochs=4", "train.batch_size=4", "train.checkpoint_s=0.05", "train.ema_decay=0.9", "model.drop_rate=0.3")


@pytest.fixture(scope="module")
def uninterrupted(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "run", *LONG)


@pytest.fixture
def begin(start, slides, tiny, tmp_path):
    """begin("a.b=c", ..., fold=K): start the run of this test in a process of its own."""

    def begin(*more, fold=None, data=None):
        words = [word for setting in tiny(*LONG, *more) for word in ("--set", setting)]
        return start(
            "baseline", "--data", data or slides, "--out", tmp_path / "run", *words, *(["--fold", fold] if fold is not None else [])
        )

    return begin


def same_predictions(path, run) -> None:
    for name in ("oof", "test", "fold-0/oof", "fold-1/test"):
        pd.testing.assert_frame_equal(
            read_table(path / f"{name}.parquet")[0], read_table(run.path / f"{name}.parquet")[0], check_exact=True, obj=name
        )


def events(path) -> list[dict]:
    return [{key: value for key, value in event.items() if key != "seconds"} for event in read_metrics(path)]


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_moments_it_ends_with_the_same_bits(begin, uninterrupted, tmp_path, seed):
    moments = random.Random(seed)
    kills = 0
    for _ in range(8):
        process = begin()
        if moments.random() < 0.8:
            wait_until(lambda process=process: process.err.exists() and "2 folds" in process.err.read_text(), process)
        process.process.join(moments.uniform(0, 0.4))
        kills += process.process.is_alive()
        process.signal(signal.SIGKILL)
        process.process.join()
    assert begin().wait().code == 0
    assert kills, "the run was too short to be killed"
    same_predictions(tmp_path / "run", uninterrupted)
    for k in (0, 1):
        assert events(tmp_path / "run" / f"fold-{k}" / "metrics.jsonl") == events(uninterrupted.fold(k) / "metrics.jsonl")


@pytest.fixture
def interrupted(begin, tmp_path):
    """A run that got Ctrl-C in the middle of fold 0, once it had two checkpoints."""
    process = begin()
    wait_for(tmp_path / "run" / "fold-0" / "previous.pt", process)
    process.signal(signal.SIGINT)
    return process.wait()


def test_ctrl_c_saves_and_says_how_to_go_on(interrupted, begin, uninterrupted, tmp_path):
    assert interrupted.code == 130
    (problem,) = interrupted.problems
    assert problem.startswith("stopped at step ")
    assert problem.endswith("state saved; the same command goes on from here")
    assert "Traceback" not in interrupted.err
    assert (tmp_path / "run" / "fold-0" / "last.pt").exists()
    assert begin().wait().code == 0
    same_predictions(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("damage", ["truncated", "one byte"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(interrupted, begin, uninterrupted, tmp_path, damage):
    path = tmp_path / "run" / "fold-0" / "last.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    finished = begin().wait()
    assert finished.code == 0
    assert "last.pt: damaged (" in finished.err and "going on from the checkpoint before it" in finished.err
    same_predictions(tmp_path / "run", uninterrupted)


def test_another_recipe_is_refused_with_the_difference(interrupted, begin):
    finished = begin("optim.lr=1e-2").wait()
    assert finished.code == 2
    assert (
        "begun with another recipe (optim.lr: 0.003 -> 0.01); choose another --out, or delete that folder" in finished.problems[0]
    )


def test_another_dataset_is_refused(interrupted, begin, slides, rewrite, tmp_path):
    finished = begin(data=rewrite(slides, tmp_path / "other", lambda patches: patches.iloc[:-1])).wait()
    assert finished.code == 2
    assert "begun on dataset " in finished.problems[0] and str(tmp_path / "other") in finished.problems[0]


def test_a_second_process_is_told_who_holds_the_run(begin, tmp_path):
    first = begin()
    wait_for(tmp_path / "run" / "fold-0" / "last.pt", first)
    first.signal(signal.SIGSTOP)
    try:
        second = begin().wait()
    finally:
        first.signal(signal.SIGCONT)
    assert second.code == 2
    assert f"{tmp_path}/run: process {first.pid} on " in second.problems[0]
    assert first.wait().code == 0


def test_folds_in_processes_of_their_own_gather_to_the_same(begin, uninterrupted, tmp_path):
    first = begin(fold=1).wait()
    assert first.code == 0
    assert "folds 0 are not trained yet" in first.err
    assert not (tmp_path / "run" / "oof.parquet").exists()
    assert begin(fold=0).wait().code == 0
    same_predictions(tmp_path / "run", uninterrupted)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


def test_folds_at_the_same_time_gather_once_to_the_same(begin, uninterrupted, tmp_path):
    together = [begin(fold=k) for k in (0, 1)]
    assert [process.wait().code for process in together] == [0, 0]
    same_predictions(tmp_path / "run", uninterrupted)


def test_a_fold_that_another_process_holds_is_refused(begin, tmp_path):
    first = begin(fold=0)
    wait_for(tmp_path / "run" / "fold-0" / "last.pt", first)
    first.signal(signal.SIGSTOP)
    try:
        second = begin(fold=0).wait()
    finally:
        first.signal(signal.SIGCONT)
    assert second.code == 2
    assert second.problems[0].startswith(f"fold-0 of {tmp_path}/run: process {first.pid} on ")
