"""Requests to a server whose connection may break: what is tried again, and what stops a download."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import requests

from pcam_ssl.errors import UserError
from pcam_ssl.terminal import say

TRIES = 5
TIMEOUT_S = 60
T = TypeVar("T")


class Lost(Exception):
    """A transfer broke and can be continued."""


def check_address(url: str) -> None:
    """Raises UserError where `url` is not the address of a web server."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--url {url}: not the address of a server; name one that begins with https://")


@contextmanager
def answer(
    url: str, first: int = 0, last: int | None = None, session: requests.Session | None = None
) -> Iterator[requests.Response]:
    """The answer, not yet read, to a request for the bytes `first` to `last` (included; None: to the end).

    A server may ignore the range: its status is then 200 instead of 206. No bytes from `first` on is status 416. Raises Lost where the
    server cannot be reached, is busy, or the connection breaks in the block; UserError for any other status.
    """
    whole = first == 0 and last is None
    headers = {"Accept-Encoding": "identity"} | ({} if whole else {"Range": f"bytes={first}-{'' if last is None else last}"})
    reached = False
    try:
        with (session or requests).get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as got:
            reached = True
            if got.status_code == 429 or got.status_code >= 500:
                raise Lost(f"the server answered {got.status_code}")
            if got.status_code not in (200, 206, 416):
                raise UserError(f"{url}: the server answered {got.status_code} {got.reason}; check the address given with --url")
            yield got
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise Lost("connection lost" if reached else f"cannot be reached ({type(error).__name__})") from None
    except requests.RequestException as error:  # an address that is none, too many redirects
        raise UserError(f"{url}: cannot be asked for ({type(error).__name__}); check the address given with --url") from None


def insist(attempt: Callable[[], T], name: str, pause_s: float) -> T:
    """The result of `attempt()`, tried up to 5 times with growing pauses. Raises the last Lost."""
    for number in range(1, TRIES + 1):
        try:
            return attempt()
        except Lost as lost:
            if number == TRIES:
                raise
            say(f"{name}: {lost}; trying again")
            time.sleep(pause_s * 2 ** (number - 1))
    raise AssertionError("the last attempt returns or raises")
