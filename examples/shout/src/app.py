"""Shouts over HTTP what the path says: ``/some words``. Standard library only."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from shouting import shout

VERSION = os.environ.get("CD_VERSION", "unreleased")
ENVIRONMENT = os.environ.get("CD_ENVIRONMENT", "nowhere")


class Handler(BaseHTTPRequestHandler):
    # Keep-alive, so that a front proxy need not open a connection per request.
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        try:
            # The health check does what the service is for, so that it fails when the service does.
            text = "ok\n" if path == "/healthz" and shout("probe") else self._page(path)
            self._answer(200, text)
        except Exception as error:
            self._answer(500, f"{type(error).__name__}: {error}\n")

    def _page(self, path: str) -> str:
        return f"{shout(path.strip('/') or 'hello, world')}\nshout {VERSION} in {ENVIRONMENT}\n"

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"]))
    with ThreadingHTTPServer(address, Handler) as server:
        server.serve_forever()
