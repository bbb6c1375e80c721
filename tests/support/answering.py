"""An HTTP server that answers what a test tells it, and keeps what it was asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What it was asked."""

    method: str
    target: str
    headers: dict[str, str]


class AnsweringServer(ThreadingHTTPServer):
    """
    Answers every request in the same way: see :meth:`answer`.

    :param tls: certificate and key, for https
    """

    daemon_threads = True

    def __init__(self, tls: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.released = threading.Event()
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answer({})

    @property
    def url(self) -> str:
        """Return its address, without a trailing slash."""
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def answer(
        self,
        content: Any,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        hangs: bool = False,
    ) -> None:
        """
        Answer like this from now on.

        :param content: bytes as they are, and as many of them as an iterator has; anything else as JSON
        :param hangs: says nothing until ``released`` is set
        """
        whole = content if isinstance(content, bytes) or callable(content) else json.dumps(content).encode()
        self.said: tuple[int, bytes | Callable[[], Iterator[bytes]], dict[str, str], bool]
        self.said = status, whole, headers or {}, hangs

    def handle_error(self, *args: Any) -> None:
        """Say nothing: clients of tests hang up."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, AnsweringServer)
        server.requests.append(Request(self.command, self.path, dict(self.headers.items())))
        status, content, headers, hangs = server.said
        if hangs:
            server.released.wait(60)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in (content,) if isinstance(content, bytes) else content():
            self.wfile.write(chunk)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def answering_server(tls: tuple[str, str] | None = None) -> Iterator[AnsweringServer]:
    """Open one on a free port of this machine."""
    with AnsweringServer(tls) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
