"""Waiting for something to become true, with a deadline and an explanation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotInTimeError(Exception):
    """Raised when what was waited for did not happen before the deadline."""


class StoppedError(Exception):
    """Raised when another process ended the wait."""


def wait_until(
    probe: Callable[[], T | None],
    what: str,
    *,
    timeout: float,
    every: float = 0.2,
    explain: Callable[[], str] | None = None,
    stop: threading.Event | None = None,
) -> T:
    """
    Call ``probe`` until it returns something true, and return that.

    :param what: completes the sentence "... did not happen within n s"
    :param timeout: seconds
    :param every: seconds between two calls
    :param explain: returns what is known about why, for the error message
    :param stop: ends the wait when it is set
    :raises NotInTimeError: the deadline passed
    :raises StoppedError: ``stop`` was set
    """
    pause = stop or threading.Event()
    deadline = time.monotonic() + timeout
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            reason = f"\n{explain()}" if explain else ""
            raise NotInTimeError(f"{what}: not within {timeout:g} s{reason}")
        if pause.wait(every):
            raise StoppedError(what)
