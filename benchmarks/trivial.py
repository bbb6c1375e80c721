"""The services that are measured: they do nothing, so that what takes time is not their own."""

from __future__ import annotations

from typing import Any

from tests.integration.fleet import Fleet
from tests.integration.services import TestService

# Of an HTTP server from the standard library, the import alone takes longer than the start of Python.
APP = """
import os, socket

TEXT = {text!r}.encode()
SICK_IN = {sick_in!r}

listener = socket.create_server((os.environ["HOST"], int(os.environ["PORT"])), backlog=128)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        head = "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(TEXT)
        connection.sendall(head.encode() + TEXT)
"""


class TrivialService(TestService):
    """A service that is built and tested by ``true``, and found healthy by its first answer."""

    app = APP

    def _define(self, **changes: Any) -> dict[str, Any]:
        commands: dict[str, Any] = {"build": [["true"]], "test": {"unit": {"commands": [["true"]]}}}
        return _healthy_at_once(super()._define(**commands, **changes))


class TrivialFleet(Fleet):
    """Services that are found healthy by their first answer."""

    app = APP

    def _define(self, one: str) -> dict[str, Any]:
        return _healthy_at_once(super()._define(one))


def _healthy_at_once(definition: dict[str, Any]) -> dict[str, Any]:
    for environment in definition["environments"]:
        environment["health"][0]["healthy_after"] = 1
    return definition
