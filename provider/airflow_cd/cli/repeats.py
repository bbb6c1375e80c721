"""Repeats what a busy server did not answer, and says so to the user."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


class NoAnswerError(Exception):
    """Raised when a request has no answer: the server may have received it, or not. Says what happened."""


@dataclass(frozen=True)
class Patience:
    """
    How long a command waits for the API server: with the defaults, for about two minutes.

    :param connect: seconds for a connection
    :param answer: seconds for an answer
    :param starts: seconds from the first attempt to each one; an attempt that takes longer delays the next
    """

    connect: float = 10.0
    answer: float = 30.0
    starts: tuple[float, ...] = (0.0, 2.0, 10.0, 30.0)


def repeated(attempt: Callable[[bool], _T], patience: Patience) -> _T:
    """
    Return what ``attempt`` returns, as soon as it has an answer.

    :param attempt: is called with whether it is a repetition, and raises :class:`NoAnswerError`
    :raises NoAnswerError: the last attempt has no answer either
    """
    began, most, number = time.monotonic(), len(patience.starts), 0
    while True:
        time.sleep(max(0.0, began + patience.starts[number] - time.monotonic()))
        number += 1
        try:
            return attempt(number > 1)
        except NoAnswerError as error:
            if number == most:
                raise
            with suppress(OSError):  # nobody reads standard error
                print(
                    f"The Airflow API {error}; trying again ({number + 1} of {most})",
                    file=sys.stderr,
                    flush=True,
                )
