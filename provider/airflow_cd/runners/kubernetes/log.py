"""What a command in a pod writes, read once and whole although the connection may break."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_cd.runners.kubernetes.manifest import COMMAND
from airflow_cd.runners.kubernetes.records import TimestampedLines

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

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
