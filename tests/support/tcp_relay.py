"""A relay in front of a TCP port whose connections can be cut, or go silent, and that can come back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class TcpRelay:
    """
    Hands on bytes between a port of its own and the one behind it.

    :param behind: host and port it hands on to
    """

    def __init__(self, behind: tuple[str, int]) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._silent: set[socket.socket] = set()
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def cut(self) -> None:
        """End all connections, and accept no more."""
        with self._lock:
            for one in [self._listener, *self._open]:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def mend(self) -> None:
        """Accept connections again, after they were cut."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def drop(self) -> None:
        """End all connections; new ones are accepted."""
        self.cut()
        self.mend()

    def go_silent(self) -> None:
        """Hand on nothing more on the connections there are, and leave them open; new ones are served."""
        with self._lock:
            self._silent.update(self._open)

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._behind)
            with self._lock:
                self.accepted += 1
                self._open += [near, far]
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._hand_on, args=pair, daemon=True).start()

    def _hand_on(self, source: socket.socket, into: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if source not in self._silent:
                    into.sendall(chunk)
            if source not in self._silent:
                into.shutdown(socket.SHUT_WR)
