"""The log of a command in a pod, read once and completely although connections break."""

from __future__ import annotations

import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_cd.exceptions import RunnerError
from airflow_cd.runners.kubernetes.job_manifest import COMMAND
from airflow_cd.runners.kubernetes.jobs import End

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

    from airflow_cd.runners.kubernetes.jobs import Jobs, Pod

log = logging.getLogger(__name__)

_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d) ")
_TIME_BYTES = 40
# Container runtimes cut long lines (Docker and containerd after 16 KiB, CRI-O after 8), and older clusters
# put a time before each piece.
_PIECE_BYTES = 8192


class TimestampedLines:
    """Takes the times out of a log, read from the beginning of a line."""

    def __init__(self) -> None:
        self._rest = b""
        self._length = 0  # of the line so far
        self._timed = False  # just now
        self._second = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """
        Take more bytes; yield pieces of what the container wrote, each with the second it was written in.

        A time that is not whole is kept until more comes.
        """
        data, at = self._rest + chunk, 0
        while at < len(data):
            if self._length % _PIECE_BYTES == 0 and not self._timed:
                found = _TIME.match(data, at)
                if found is not None:
                    self._second = _second_of(found)
                    self._timed, at = True, found.end()
                    continue
                if len(data) - at < _TIME_BYTES and b"\n" not in data[at:]:
                    break
            room = _PIECE_BYTES - self._length % _PIECE_BYTES
            end = data.find(b"\n", at, at + room) + 1 or min(at + room, len(data))
            piece, at = data[at:end], end
            self._length = 0 if piece.endswith(b"\n") else self._length + len(piece)
            self._timed = False
            yield self._second, piece
        self._rest = data[at:]


def _second_of(time: re.Match[bytes]) -> int:
    moment, zone = time.group(1).decode(), time.group(2).decode()
    return int(datetime.fromisoformat(moment + zone.replace("Z", "+00:00")).timestamp())


_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 5
# A connection that says nothing may be dead; a command that says nothing is asked for again.
_QUIET_SECONDS = 30
# Two streams of a container are written by two threads: times may be out of order by a little.
_DISORDER_SECONDS = 1
# What is read again is known by its time: this much more than is needed is asked for.
_AGAIN_SECONDS = 300


class PodLog:
    """
    :param show: gets what the command wrote, each byte once
    """

    def __init__(self, core: CoreV1Api, namespace: str, pod: str, show: Callable[[bytes], None]) -> None:
        self._core, self._namespace, self._pod, self._show = core, namespace, pod, show
        self._shown: dict[int, int] = defaultdict(int)  # second -> how many bytes written in it were shown
        self._read_at: float | None = None
        self._from, self._skip = 0, 0

    def read(self, *, follow: bool) -> None:
        """
        Show what was not shown yet.

        :param follow: go on until the command ends, or the connection does
        :raises ApiException: the cluster does not give it
        :raises urllib3.exceptions.HTTPError: the connection broke
        """
        self._go_back()
        since = None if self._read_at is None else int(time.monotonic() - self._read_at) + _AGAIN_SECONDS
        options = {} if since is None else {"since_seconds": since}
        response = self._core.read_namespaced_pod_log(
            self._pod,
            self._namespace,
            container=COMMAND,
            follow=follow,
            timestamps=True,
            _preload_content=False,
            _request_timeout=(_CONNECT_SECONDS, _QUIET_SECONDS),
            **options,
        )
        records = TimestampedLines()
        try:
            for chunk in response.stream(_CHUNK_BYTES):
                for second, piece in records.feed(chunk):
                    self._take(second, piece)
        finally:
            response.close()

    def _go_back(self) -> None:
        """Choose a second from which on to count: what is older is known to be shown, or not sent again."""
        self._from = max(self._shown, default=0) - _DISORDER_SECONDS
        self._shown = defaultdict(int, {at: n for at, n in self._shown.items() if at >= self._from})
        self._skip = sum(self._shown.values())

    def _take(self, second: int, piece: bytes) -> None:
        self._read_at = time.monotonic()
        if second < self._from:
            return
        shown = min(self._skip, len(piece))
        self._skip -= shown
        if new := piece[shown:]:
            self._shown[second] += len(new)
            self._show(new)


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
    :raises RunnerError: the pod was deleted
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
            raise RunnerError("the pod of a command was deleted before the command ended")
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
