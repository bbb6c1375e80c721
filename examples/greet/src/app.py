"""Greets over HTTP from a container: ``/`` or ``/<name>``. Standard library only."""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from greeting import greet

VERSION = os.environ.get("CD_VERSION", "unreleased")
ENDING = threading.Event()
# Who keeps a connection learns by the answer to its next request that it has to open another one.
GOODBYE_SECONDS = 2.0


class Handler(BaseHTTPRequestHandler):
    # Keep-alive, so that a front proxy need not open a connection per request.
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self._answer("ok\n" if path == "/healthz" else f"{greet(path.strip('/'))}\ngreet {VERSION}\n")

    def _answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if ENDING.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def end(server: ThreadingHTTPServer) -> None:
    """Close each connection with the next answer there, and stop a moment later."""
    ENDING.set()
    threading.Timer(GOODBYE_SECONDS, server.shutdown).start()


def main() -> None:
    # All addresses: in a container, 127.0.0.1 is reached by nobody else.
    address = (os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080")))
    with ThreadingHTTPServer(address, Handler) as server:
        # As process 1 of a container SIGTERM would not end it without this handler.
        signal.signal(signal.SIGTERM, lambda *_: end(server))
        server.serve_forever()


if __name__ == "__main__":
    main()
