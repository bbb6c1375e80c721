"""A command in a pod from its begin to its end, although connections break meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_cd.exceptions import RunnerError
from airflow_cd.runners.kubernetes.pod import End

if TYPE_CHECKING:
    from airflow_cd.runners.kubernetes.jobs import Jobs
    from airflow_cd.runners.kubernetes.log import PodLog
    from airflow_cd.runners.kubernetes.pod import Pod

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.3
# An API server that is replaced is away for some minutes, and the command goes on meanwhile.
_AWAY_SECONDS = 300
_DENIED = (401, 403)
_REST_TRIES = 5
# What a program ends with that is killed.
_KILLED = End(137)


def follow(jobs: Jobs, output: PodLog, number: int, is_over: Callable[[], bool]) -> End:
    """
    Show what a command writes until it ended, and return how.

    :param is_over: whether we ended it: then its pod may be gone
    :raises RunnerError: somebody else ended it
    :raises ApiException: the cluster does not answer for minutes, or not to us
    :raises urllib3.exceptions.HTTPError: the cluster does not answer for minutes
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    answered = time.monotonic()
    while True:
        problem: Exception | None = None
        try:
            output.read(follow=True)
        except ReadTimeoutError:
            pass  # it said nothing for a while
        except (ApiException, HTTPError) as error:
            if getattr(error, "status", None) in _DENIED:
                raise
            problem = error
        try:
            end = _ended(jobs.pod(number), is_over)
        except (ApiException, HTTPError) as error:
            problem, end = error, None
        if end is not None:
            _show_rest(output, gone=is_over())
            return end
        if problem is None:
            answered = time.monotonic()
        elif time.monotonic() - answered > _AWAY_SECONDS:
            raise problem
        time.sleep(_EVERY_SECONDS)


def _ended(pod: Pod | None, is_over: Callable[[], bool]) -> End | None:
    if pod is None or pod.is_leaving:
        if is_over():
            return _KILLED
        if pod is None:
            raise RunnerError("somebody deleted the pod of a command before that was done")
    pod.need_own_end()
    return pod.end


def _show_rest(output: PodLog, gone: bool) -> None:
    """Show the last words: a log that is followed may end before them."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    for left in reversed(range(_REST_TRIES)):
        try:
            return output.read(follow=False)
        except (ApiException, HTTPError) as error:
            if gone or not left:
                log.warning(
                    "The end of what the command wrote may be missing: %s", getattr(error, "reason", error)
                )
                return
        time.sleep(_EVERY_SECONDS)
