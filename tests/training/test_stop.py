import os
import signal
import threading

import pytest

from pcam_ssl.training.checkpoint import Stopped, interruptible, stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_a_request(number):
    with stop_requests() as stop:
        assert not stop.came
        os.kill(os.getpid(), number)
        assert stop.came


def test_the_signal_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with stop_requests():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_sets_no_signal_handlers():
    seen = []

    def work():
        with stop_requests() as stop:
            seen.append(stop.came)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_ctrl_c_between_trainings_names_the_next_step():
    with (
        pytest.raises(Stopped, match="runs/a: stopped; what is finished is kept, and the same command goes on from there"),
        interruptible("runs/a"),
    ):
        raise KeyboardInterrupt


def test_stopped_is_exit_code_130():
    assert Stopped("x").exit_code == 130
