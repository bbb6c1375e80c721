"""The holder of a lease on an environment: written beside the lease, and named to those who are refused."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, NamedTuple


class LeaseHolder(NamedTuple):
    """
    The process that holds a lease. Nothing is decided by it.

    :param actor: the user or run that deploys
    :param what: the version that it deploys
    :param since: seconds since the epoch
    :param pid: of the process, on ``machine``
    """

    actor: str
    what: str
    since: float
    pid: int
    machine: str

    @classmethod
    def of_this_process(cls, actor: str, what: str) -> LeaseHolder:
        """Return this process as the holder, from now on."""
        return cls(actor, what, time.time(), os.getpid(), socket.gethostname())

    def to_json(self) -> str:
        """Return what :func:`described` reads."""
        return json.dumps(self._asdict())


def described(text: str | bytes | None) -> str:
    """
    Return who holds a lease, for people: ``alice deploys 1.4.0, for 12 s (process 4711 on worker-1)``.

    :param text: as :meth:`LeaseHolder.to_json` wrote it; ``unknown`` for anything else
    """
    holder = _read(text)
    if holder is None:
        return "unknown"
    seconds = max(time.time() - holder.since, 0)
    where = f"process {holder.pid} on {holder.machine}"
    return f"{holder.actor} deploys {holder.what}, for {seconds:.0f} s ({where})"


def held_since(text: str | bytes | None) -> float:
    """Return since when the lease is held, in seconds since the epoch; 0 where that is not known."""
    holder = _read(text)
    return 0.0 if holder is None else holder.since


def _read(text: str | bytes | None) -> LeaseHolder | None:
    try:
        found: Any = json.loads(text or "")
        return LeaseHolder(
            str(found["actor"]),
            str(found["what"]),
            float(found["since"]),
            int(found["pid"]),
            str(found.get("machine", "this machine")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
