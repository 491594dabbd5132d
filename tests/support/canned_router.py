"""A server that answers as a router would, from a list; for the commands that ask one."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """One request as it came in."""

    method: str
    path: str
    content: object
    token: str | None


class CannedRouter(HTTPServer):
    """Answers by method and path without its query; ``asked`` is what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[tuple[str, str], tuple[int, object]] = {}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: CannedRouter

    def _answer(self) -> None:
        length = int(self.headers["content-length"] or 0)
        body = self.rfile.read(length)
        content = json.loads(body) if body else None
        token = self.headers["authorization"]
        self.server.asked.append(Asked(self.command, self.path, content, token))
        missing = (404, {"error": {"message": f"no {self.path}"}})
        answers = self.server.answers
        status, answer = answers.get((self.command, self.path.partition("?")[0]), missing)
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = _answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


@contextmanager
def canned_router() -> Iterator[CannedRouter]:
    """Run one while entered."""
    with CannedRouter() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
