"""A web server on 127.0.0.1 that sends files in ranges, counts what it sends, and fails in the ways of real ones."""

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `files` (by path: bytes, or the address of a redirection). `asked` holds path and range of each request, `sent` the bytes of all answers.

    `ranges`: whether it knows Range. `breaks`: how many of the next answers stop after a third of their bytes. `breaks_after`: once
    this number of bytes is sent, every answer does. `status` and `page` answer every request with this status, or this HTML.
    """

    def __init__(self, files):
        self.files, self.asked, self.sent = dict(files), [], 0
        self.ranges, self.breaks, self.breaks_after, self.status, self.page = True, 0, None, None, None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.handle_error = lambda *_: None  # a client that stops early is part of the tests
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, path, asked):
        """Status, body and further headers of an answer."""
        if self.page is not None:
            return 200, self.page, {"Content-Type": "text/html; charset=utf-8"}
        content = self.files.get(path)
        if self.status or content is None:
            return self.status or 404, b"", {}
        if isinstance(content, str):
            return 302, b"", {"Location": content}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked or "") if self.ranges else None
        if match is None:
            return 200, content, {}
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first >= len(content):
            return 416, b"", {"Content-Range": f"bytes */{len(content)}"}
        return 206, content[first : last + 1], {"Content-Range": f"bytes {first}-{last}/{len(content)}"}

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms

            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range")))
                status, body, headers = server._answer(self.path, self.headers.get("Range"))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if server.breaks or (server.breaks_after is not None and server.sent > server.breaks_after):
                    server.breaks = max(0, server.breaks - 1)
                    body, self.close_connection = body[: len(body) // 3], True
                server.sent += len(body)
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        return Handler
