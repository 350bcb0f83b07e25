"""A file on a web server, read in ranges: only what is asked for is transferred."""

import io
import re

import requests

from pcam_ssl.data.connection import Lost, answer, insist
from pcam_ssl.errors import UserError

BLOCK_BYTES = 2**20
"""Size of a request. What is left of it is transferred in vain, and smaller requests would wait more often for the server."""
HELD = 4
"""Blocks in memory. A parquet reader goes on in several columns at a time."""
START = b"PAR1"
"""The first bytes of a parquet file. A page of HTML is recognised by their absence, before it is parsed."""


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
