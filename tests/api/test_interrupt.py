"""Interrupts and second callers: a run that is stopped goes on, and one that is held says by whom."""

import ctypes
import os
import signal
import threading

import pandas as pd
import pytest

import pcam_ssl as pcam
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.training import checkpoint, loop

pytestmark = pytest.mark.trains


class Interrupting:
    """Calls `how` once, at the tenth step."""

    def __init__(self, step, how):
        self.step, self.how, self.calls = step, how, 0

    def __call__(self, *args, **options):
        self.calls += 1
        if self.calls == 10:
            self.how()
        return self.step(*args, **options)


def interrupt_cell():
    """What a notebook's "interrupt kernel" sends."""
    signal.raise_signal(signal.SIGINT)


def interrupt_thread():
    """KeyboardInterrupt in the thread that trains, where no signal handler can be set."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(KeyboardInterrupt))


def in_a_thread(call) -> BaseException | None:
    """What `call` raises in a thread of its own."""
    raised: list[BaseException] = []

    def work():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="cell-7")
    thread.start()
    thread.join()
    return raised[0] if raised else None


def here(call) -> BaseException | None:
    try:
        call()
    except BaseException as error:
        return error
    return None


@pytest.mark.parametrize(("runner", "how"), [(here, interrupt_cell), (in_a_thread, interrupt_thread)], ids=["main", "thread"])
def test_an_interrupt_leaves_a_run_that_continues(runner, how, slides, tiny, tmp_path, monkeypatch):
    settings = tiny("train.epochs=4")
    whole = pcam.train(slides, settings=settings, out=tmp_path / "whole")
    monkeypatch.setattr(loop, "train_step", Interrupting(loop.train_step, how))
    stopped = runner(lambda: pcam.train(slides, settings=settings, out=tmp_path / "stopped"))
    monkeypatch.undo()
    assert isinstance(stopped, checkpoint.Stopped) and isinstance(stopped, pcam.UserError)
    assert not pcam.Run(tmp_path / "stopped").paths.scores.exists()
    again = pcam.train(slides, settings=settings, out=tmp_path / "stopped")
    pd.testing.assert_frame_equal(again.oof, whole.oof)


def test_a_thread_is_told_that_another_thread_holds_the_run(slides, tiny, tmp_path):
    out = tmp_path / "run"
    with lock_file(out / ".lock", str(out)):
        told = in_a_thread(lambda: pcam.train(slides, settings=tiny(), out=out))
    assert isinstance(told, pcam.UserError)
    assert f"process {os.getpid()} on " in told.what and "this very process, in its thread MainThread" in told.what
    assert told.where == str(out) and "choose another --out" in told.next
    assert not out.exists()


def test_of_two_threads_on_one_run_one_trains_and_one_is_told(slides, tiny, tmp_path):
    raised: list[BaseException | None] = []

    def work():
        raised.append(here(lambda: pcam.train(slides, settings=tiny("train.epochs=2"), out=tmp_path / "run")))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [error for error in raised if error is not None]
    assert len(told) == 1 and isinstance(told[0], pcam.UserError) and "is writing it" in told[0].what
    assert pcam.open_run(tmp_path / "run").scores["auroc"].value is not None


def test_two_threads_that_make_one_blend_get_the_same(finished, tmp_path):
    raised: list[BaseException | None] = []

    def work():
        raised.append(here(lambda: pcam.blend([finished], out=tmp_path / "blend")))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == [None, None]
    assert [path.name for path in tmp_path.iterdir()] == ["blend"]
    pd.testing.assert_frame_equal(
        pcam.open_run(tmp_path / "blend").oof.drop(columns=["logit", "view_std"]), finished.oof.drop(columns=["logit", "view_std"])
    )
