"""Serves git over HTTP by git's own program for it, behind a door that can be shut or ask for a password."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit


class GitServer(ThreadingHTTPServer):
    """
    Serves the bare repositories of a folder.

    :param root: the folder
    :param login: ``user:password`` that is asked for; ``None`` lets everybody in
    """

    daemon_threads = True

    def __init__(self, root: Path, login: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.login = login
        self.down = False
        self.failures = 0  # how many listings fail from now on
        self.listings = 0
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        """Return the address under which the folder's repositories lie."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[GitServer]:
        """Serve until the end of the block."""
        thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: GitServer

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path.endswith("/info/refs?service=git-upload-pack"):
            self.server.listings += 1
        self._answer(b"")

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        self._answer(self._body())

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        if self.server.down or self.server.failures > 0:
            self.server.failures -= 1
            self.send_error(503)
        elif self._is_known():
            self._pass_on(body)
        else:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()

    def _is_known(self) -> bool:
        login = self.server.login
        sent = self.headers.get("Authorization", "")
        return login is None or sent == "Basic " + base64.b64encode(login.encode()).decode()

    def _pass_on(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        ran = subprocess.run(
            ["git", "-c", "safe.directory=*", "http-backend"],
            input=body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
