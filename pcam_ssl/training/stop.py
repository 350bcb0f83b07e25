"""Ctrl-C and a scheduler's SIGTERM: finish the step, save, and say how to go on."""

import signal
import threading
from contextlib import contextmanager

from pcam_ssl.errors import UserError


class Stopped(UserError):
    """Training was asked to stop and has saved its state."""

    exit_code = 130


@contextmanager
def interruptible(what: str):
    """Ctrl-C outside of training, where nothing needs saving: say that `what` goes on later instead of a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(f"{what}: stopped; what is finished is kept, and the same command goes on from there") from None


class StopRequest:
    """True once a signal came."""

    def __init__(self):
        self.came = False

    def __call__(self, *_):
        self.came = True


@contextmanager
def stop_requests():
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; yields a StopRequest."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
