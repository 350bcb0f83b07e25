import hashlib
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from pcam_ssl.data import download as downloading
from pcam_ssl.data.connection import TRIES
from pcam_ssl.data.download import download_pcam
from pcam_ssl.errors import UserError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SUMS = {"train_x.h5.gz": hashlib.md5(CONTENT).hexdigest()}


class Zenodo:
    """A server of one file on 127.0.0.1 that keeps a list of the ranges asked for.

    `breaks` is the number of answers that stop after a third of their bytes; `ranges` whether it knows Range.
    """

    def __init__(self):
        self.breaks, self.ranges, self.asked, self.status = 0, True, [], 200
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}/files"
        self.server.handle_error = lambda *_: None  # a client that stops early is part of these tests
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def _handler(zenodo):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                zenodo.asked.append(asked)
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and zenodo.ranges else 0
                status = zenodo.status if self.path.startswith("/files/train_x.h5.gz") else 404
                if status == 200 and start:
                    status = 206 if start < len(CONTENT) else 416
                body = CONTENT[start:] if status in (200, 206) else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if zenodo.breaks:
                    zenodo.breaks -= 1
                    body = body[: len(body) // 3]
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler


def _thirds(starts):
    """Bytes that had come when the first and the second answer broke."""
    return len(CONTENT) // 3, starts[1] + (len(CONTENT) - starts[1]) // 3


@pytest.fixture
def zenodo():
    server = Zenodo()
    yield server
    server.server.shutdown()
    server.server.server_close()


def fetch(folder, zenodo, sums=SUMS):
    return download_pcam(folder, zenodo.url, sums, pause_s=0)


def test_files_are_downloaded_completely(tmp_path, zenodo):
    (path,) = fetch(tmp_path / "new" / "folder", zenodo)
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["train_x.h5.gz"]


def test_a_broken_transfer_continues_where_it_stopped(tmp_path, zenodo):
    zenodo.breaks = 2
    (path,) = fetch(tmp_path, zenodo)
    assert path.read_bytes() == CONTENT
    assert zenodo.asked[0] is None
    starts = [0] + [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in zenodo.asked[1:]]
    assert len(starts) == 3
    assert all(came - downloading.BLOCK_BYTES <= start <= came for start, came in zip(starts[1:], _thirds(starts), strict=True))


def test_a_lost_connection_keeps_its_bytes_and_the_next_run_continues(tmp_path, zenodo):
    zenodo.breaks = TRIES
    with pytest.raises(UserError, match=r"connection lost; [\d,]+ bytes are kept: run the same command to continue"):
        fetch(tmp_path, zenodo)
    held = (tmp_path / "train_x.h5.gz.part").stat().st_size
    zenodo.asked.clear()
    (path,) = fetch(tmp_path, zenodo)
    assert path.read_bytes() == CONTENT
    assert zenodo.asked == [f"bytes={held}-"]


def test_a_server_without_range_starts_again(tmp_path, zenodo):
    zenodo.ranges = False
    (tmp_path / "train_x.h5.gz.part").write_bytes(CONTENT[:1000])
    (path,) = fetch(tmp_path, zenodo)
    assert path.read_bytes() == CONTENT


def test_a_complete_part_is_only_renamed(tmp_path, zenodo):
    (tmp_path / "train_x.h5.gz.part").write_bytes(CONTENT)
    (path,) = fetch(tmp_path, zenodo)
    assert path.read_bytes() == CONTENT


def test_a_file_that_is_there_is_verified_and_not_fetched(tmp_path, zenodo):
    (tmp_path / "train_x.h5.gz").write_bytes(CONTENT)
    fetch(tmp_path, zenodo)
    assert zenodo.asked == []


def test_a_wrong_file_that_is_there_is_refused_and_kept(tmp_path, zenodo):
    (tmp_path / "train_x.h5.gz").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"train_x.h5.gz: its MD5 is not that of the published file; delete it"):
        fetch(tmp_path, zenodo)
    assert (tmp_path / "train_x.h5.gz").read_bytes() == b"mine"


def test_wrong_md5_removes_the_download(tmp_path, zenodo):
    with pytest.raises(
        UserError, match=r"downloaded bytes have MD5 .*, the published file has 0{32}; they were removed: run it again"
    ):
        fetch(tmp_path, zenodo, {"train_x.h5.gz": "0" * 32})
    assert list(tmp_path.iterdir()) == []


def test_an_absent_file_points_to_the_address(tmp_path, zenodo):
    with pytest.raises(UserError, match=r"other.gz.*the server answered 404 Not Found; check the address given with --url"):
        fetch(tmp_path, zenodo, {"other.gz": "0" * 32})


def test_a_busy_server_is_retried_then_named(tmp_path, zenodo):
    zenodo.status = 503
    with pytest.raises(UserError, match="the server answered 503; 0 bytes are kept"):
        fetch(tmp_path, zenodo)
    assert len(zenodo.asked) == TRIES


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectionError\)"):
        download_pcam(tmp_path, "http://127.0.0.1:9/files", SUMS, pause_s=0)


def test_room_is_checked_before_the_transfer(tmp_path, zenodo, monkeypatch):
    monkeypatch.setattr(downloading, "check_space", lambda folder, needed: (_ for _ in ()).throw(UserError(f"needs {needed}")))
    with pytest.raises(UserError, match="needs 3000000"):
        fetch(tmp_path, zenodo)
    assert shutil.disk_usage(tmp_path).free and list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_one_line(tmp_path, zenodo):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/folder: cannot be written \(Not a directory\); name another folder"):
        fetch(tmp_path / "file" / "folder", zenodo)
