"""A relay in front of a unix socket that can be cut: the other side is gone, in the middle of anything."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path


class Relay:
    """
    Hands on bytes between ``address`` and the socket behind it, until it is cut.

    :param path: of the socket it listens on
    :param behind: of the socket it hands on to
    :param tls: listen on a port of this machine instead, with this
    """

    def __init__(self, path: Path, behind: str, tls: ssl.SSLContext | None = None) -> None:
        self.address, self._behind, self._tls = f"unix://{path}", behind, tls
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        if tls is not None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections, and accept no more."""
        with self._lock:
            for one in [self._listener, *self._open]:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._tls is not None:
                try:
                    near = self._tls.wrap_socket(near, server_side=True)
                except OSError:  # no certificate, or not ours
                    continue
            far = socket.socket(socket.AF_UNIX)
            far.connect(self._behind)
            with self._lock:
                self._open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=_hand_on, args=pair, daemon=True).start()


def _hand_on(source: socket.socket, into: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            into.sendall(chunk)
        into.shutdown(socket.SHUT_WR)
