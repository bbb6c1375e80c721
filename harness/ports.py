"""Finding ports that nothing listens on."""

from __future__ import annotations

import os
import random
import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

LOOPBACK = "127.0.0.1"
# Below the range the kernel takes the ports of outgoing connections from, so that none of those gets in the
# way between finding a port and listening on it.
_FIRST, _LAST = 20_000, 32_000
# A port that was handed out is locked until this process ends: nothing may listen on it yet, and other
# processes of this user (pytest-xdist starts several, and so do two test runs) look for ports, too.
_LOCKS = Path(tempfile.gettempdir()) / f"airflow-cd-ports-{os.getuid()}"
_given: dict[int, FileLock] = {}


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port, on the loopback address and on all addresses."""
    return _can_bind(LOOPBACK, port) and _can_bind("", port)


def first_free(preferred: int) -> int:
    """
    Return ``preferred``, or the next free port above it that was not handed out.

    :raises OSError: none of the 200 ports from ``preferred`` on is free
    """
    for port in range(preferred, min(preferred + 200, 65_536)):
        if _reserve(port):
            return port
    raise OSError(f"none of the ports {preferred} to {preferred + 199} is free; stop what listens there")


def any_free(count: int = 1) -> list[int]:
    """
    Return free ports that no process of this user was given before, as long as that process runs.

    :raises OSError: there are not that many
    """
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        if len(found) == count:
            return found
        if _reserve(port):
            found.append(port)
    raise OSError(f"fewer than {count} ports between {_FIRST} and {_LAST} are free; stop what listens there")


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether something accepts connections on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _reserve(port: int) -> bool:
    if port in _given:
        return False
    _LOCKS.mkdir(mode=0o700, exist_ok=True)
    lock = FileLock(_LOCKS / str(port))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    if not is_free(port):
        lock.release()
        return False
    _given[port] = lock
    return True


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # Without it a port whose last connections are only just closed would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
