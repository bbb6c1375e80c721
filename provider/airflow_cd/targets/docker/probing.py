"""Looks at the containers of a release from where requests will come: from inside the front."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from airflow_cd.exceptions import TargetError

if TYPE_CHECKING:
    from docker.models.containers import Container

_ESTABLISHED = "01"
_ATTEMPT_SECONDS = 2
# From here on exit codes say that a program could not be run, or was killed.
_NOT_RUN = 126
# ... and this is what BusyBox's ``timeout`` makes of a program that took too long.
_TERMINATED = 143


class Probe:
    """
    Runs BusyBox's ``wget`` in the front's container, so that it works with engines on other machines too.

    :param front: its container, which runs
    """

    def __init__(self, front: Container) -> None:
        self._front = front

    def status(self, host: str, port: int, path: str) -> int | None:
        """Return the status of the answer, ``None`` when there is no HTTP answer (in time)."""
        url = f"http://{host}:{port}{path}"
        argv = ["timeout", str(_ATTEMPT_SECONDS), "wget", "-S", "-O", "/dev/null", url]
        code, output = self._front.exec_run(argv, user="0")
        said = output.decode(errors="replace")
        if found := re.search(r"HTTP/\d(?:\.\d)? (\d{3})", said):
            return int(found[1])
        if code >= _NOT_RUN and code != _TERMINATED:
            raise TargetError(
                f"wget cannot be run in the front; use another image as `front:` (exit code {code}): {said}"
            )
        return None

    def connections(self, address: str, port: int) -> int:
        """Return how many connections the front has to this address."""
        _, output = self._front.exec_run(["cat", "/proc/net/tcp"], user="0")
        octets = ipaddress.IPv4Address(address).packed[::-1]
        wanted = f"{octets.hex().upper()}:{port:04X}"
        rows = [line.split() for line in output.decode().splitlines()]
        return sum(len(row) > 3 and row[2] == wanted and row[3] == _ESTABLISHED for row in rows)
