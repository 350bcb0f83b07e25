"""Files on a web server whose connection may break: requests that are tried again, and a file that is read in ranges."""

import io
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import requests

from pcam_ssl.errors import UserError
from pcam_ssl.terminal import say

TRIES = 5
TIMEOUT_S = 60
BLOCK_BYTES = 2**20
"""Size of a request. What is left of it is transferred in vain, and smaller requests would wait more often for the server."""
HELD = 4
"""Blocks in memory. A parquet reader goes on in several columns at a time."""
START = b"PAR1"
"""The first bytes of a parquet file. A page of HTML is recognised by their absence, before it is parsed."""
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


class RangedFile(io.RawIOBase):
    """A parquet file at `url`, readable and seekable; `transferred` counts the bytes that came.

    A broken request is repeated up to 5 times. Raises UserError where the server ignores ranges, lacks the file, or sends something
    else than parquet, and Lost where the connection broke for good.
    """

    def __init__(self, url: str, pause_s: float):
        self.url = url
        self.transferred = 0
        self._pause_s = pause_s
        self._session = requests.Session()
        self._held: list[tuple[int, bytes]] = []
        self._place = 0
        self._size: int | None = None
        start = self._ask(0, len(START))
        if start != START:
            raise UserError(f"{url}: is not a parquet file; check the address given with --url")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._place + size, self._size)
        parts = []
        while self._place < end:
            first, block = self._block(end)
            parts.append(block[self._place - first : end - first])
            self._place += len(parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        self._session.close()
        super().close()

    def _block(self, end: int) -> tuple[int, bytes]:
        """A block, and the place where it begins, that holds the byte to be read next. A new one reaches to `end` at least."""
        for number, (first, block) in enumerate(self._held):
            if first <= self._place < first + len(block):
                self._held.append(self._held.pop(number))
                return first, block
        last = min(max(end, self._place + BLOCK_BYTES), self._size)
        self._held.append((self._place, self._ask(self._place, last)))
        del self._held[:-HELD]
        return self._held[-1]

    def _ask(self, first: int, end: int) -> bytes:
        name = "/".join(self.url.rsplit("/", 2)[1:])
        return insist(lambda: self._transfer(first, end), name, self._pause_s)

    def _transfer(self, first: int, end: int) -> bytes:
        with answer(self.url, first, end - 1, self._session) as got:
            if got.status_code != 206:
                self._refuse(got)
            size = re.fullmatch(rf"bytes {first}-\d+/(\d+)", got.headers.get("Content-Range", ""))
            if size is None or self._size not in (None, int(size[1])):
                raise UserError(f"{self.url}: the server sends other bytes than were asked for; name another with --url")
            content = got.content
        self.transferred += len(content)
        if len(content) != min(end, int(size[1])) - first:
            raise Lost("connection lost")
        self._size = int(size[1])
        return content

    def _refuse(self, got: requests.Response) -> None:
        if got.status_code == 416:
            raise UserError(f"{self.url}: is empty or cut short; check the address given with --url")
        if got.headers.get("Content-Type", "").startswith("text/html"):
            raise UserError(
                f"{self.url}: the server sent a web page in place of the file; check the address, and that you are online"
            )
        raise UserError(
            f"{self.url}: the server ignores ranges and would send all; name another with --url, or download all without --sample"
        )
