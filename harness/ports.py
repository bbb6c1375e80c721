"""Finding ports that nothing listens on."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

LOOPBACK = "127.0.0.1"
# Below the range the kernel takes the ports of outgoing connections from, so that none of those gets in the
# way between finding a port and listening on it.
_FIRST, _LAST = 20_000, 32_000
# What this process was given before: whoever asked may not listen yet.
_given: set[int] = set()


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port, on the loopback address and on all addresses."""
    return _can_bind(LOOPBACK, port) and _can_bind("", port)


def first_free(preferred: int, taken: Collection[int] = ()) -> int:
    """
    Return ``preferred``, or the next free port above it.

    :param taken: ports that are promised to somebody else though nothing listens on them yet
    :raises OSError: none of the 200 ports from ``preferred`` on is free
    """
    for port in range(preferred, min(preferred + 200, 65_536)):
        if port not in taken and is_free(port):
            return port
    raise OSError(f"none of the ports {preferred} to {preferred + 199} is free; stop what listens there")


def any_free(count: int = 1) -> list[int]:
    """
    Return free ports that were not returned before, at random so that other processes rarely get the same.

    :raises OSError: there are not that many
    """
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        if len(found) == count:
            return found
        if port not in _given and is_free(port):
            found.append(port)
            _given.add(port)
    raise OSError(f"fewer than {count} ports between {_FIRST} and {_LAST} are free; stop what listens there")


def is_listening(port: int, host: str = LOOPBACK) -> bool:
    """Tell whether something accepts connections on this port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # Without it a port whose last connections are only just closed would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
