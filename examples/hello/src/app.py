"""Greets over HTTP: ``/`` or ``/<name>``. Standard library only."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from greeting import greet

VERSION = os.environ.get("CD_VERSION", "unreleased")
ENVIRONMENT = os.environ.get("CD_ENVIRONMENT", "nowhere")


class Handler(BaseHTTPRequestHandler):
    # Keep-alive, so that a front proxy need not open a connection per request.
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/healthz":
            self._answer("ok\n")
        else:
            self._answer(f"{greet(path.strip('/'))}\nhello {VERSION} in {ENVIRONMENT}\n")

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"]))
    with ThreadingHTTPServer(address, Handler) as server:
        server.serve_forever()
