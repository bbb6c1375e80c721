"""
A process that changes a Docker target, and stops itself (SIGSTOP) right before a write to the engine.

``python frozen_rival.py SERVICE ENVIRONMENT RELEASE STORE DATA ACTION NUMBER`` prints ``WON <generation>`` or
``LOST <error> <message>`` in the end. ``ACTION`` is a method of the target; writes are counted from 1. To
look at containers from within the front is no write: the count does not depend on how often that is done.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_LOOKS = ('"Cmd": ["timeout"', '"Cmd": ["cat"')


class Freezer:
    """Counts the writes of a client; see the module."""

    def __init__(self, number: int) -> None:
        self._left, self._looks = number, False

    def before(self, method: str, url: str, data: object) -> None:
        """Stop this process if the request is the one."""
        if method not in ("POST", "PUT", "DELETE"):
            return
        if url.endswith("/exec"):
            self._looks = any(look in str(data) for look in _LOOKS)
        if "/exec" in url and self._looks:
            return
        self._left -= 1
        if self._left == 0:
            print("FROZEN", method, url.partition("/v1.")[2], str(data)[:160], file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)


def main(arguments: Sequence[str]) -> None:
    """
    Change the target once.

    :param arguments: as on the command line; environment and release as JSON
    """
    from docker import APIClient

    from airflow_cd.hooks.clients import CLIENTS
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.packaging.archive import unpack
    from airflow_cd.stores.registry import open_store
    from airflow_cd.targets.base import Access
    from airflow_cd.targets.registry import open_target

    logging.disable()
    service, environment, release, store, data, action, number = arguments
    access = Access(Path(data), unpack, clients=CLIENTS)
    target: Any = open_target(service, Environment.model_validate_json(environment), access)
    which = Release.model_validate_json(release)
    freezer, request = Freezer(int(number)), APIClient.request
    expected = target.record().generation

    def counted(self: Any, method: str, url: str, *rest: Any, **more: Any) -> Any:
        freezer.before(method, url, more.get("data"))
        return request(self, method, url, *rest, **more)

    APIClient.request = counted
    actions = {
        "deploy": lambda: (
            target.deploy(which, open_store(store), expected=expected, actor="frozen").generation
        ),
        "rollback": lambda: target.rollback(bad=which.digest, actor="frozen").generation,
        "remove": target.remove,
    }
    try:
        print("WON", actions[action]())
    except Exception as error:
        print("LOST", type(error).__name__, error)


if __name__ == "__main__":
    main(sys.argv[1:])
