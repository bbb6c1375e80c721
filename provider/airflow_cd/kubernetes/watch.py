"""Watches a namespace on the event loop and reports when something changed."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from airflow_cd.processes.deadline import within

log = logging.getLogger(__name__)

_PATHS = {
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{namespace}/statefulsets",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
}
# Only what says that something changed: neither specs nor states. What has no such form comes whole.
_ACCEPT = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
# The server ends a watch after this long. A connection on which nothing came for longer is dead.
_WATCH_SECONDS = 60
_CONNECT_SECONDS, _READ_SECONDS = 10, 75
# A watch that did not last that long counts as failed, however it ended: the next one begins later.
_LASTING_SECONDS = 5.0
_LONGEST_BACKOFF = 30.0
# Changes come in bursts: a pod that starts changes several times, and with it its workload.
_BURST_SECONDS = 0.2
_GONE = 410


class Watched:
    """What changed, see :class:`airflow_cd.targets.base.Changes`."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when something may have changed since the last call, or after so many seconds."""
        began = time.monotonic()
        if not self.changed.is_set():
            with suppress(asyncio.TimeoutError):
                await within(seconds, self.changed.wait())
        if self.changed.is_set():
            left = seconds - (time.monotonic() - began)
            await asyncio.sleep(max(min(_BURST_SECONDS, left), 0.0))
        # Cleared before the caller looks: a change during the read is reported by the next call.
        self.changed.clear()


@asynccontextmanager
async def watch_namespace(
    client: Callable[[], Any],
    namespace: str,
    labels: Mapping[str, str],
    kinds: Sequence[str] = ("Pod", "Deployment"),
) -> AsyncIterator[Watched]:
    """
    Watch objects of a namespace.

    A watch that ends goes on from the last change it saw, or from what is there now when the server does not
    know that one any more. Whatever fails is tried again, ever more slowly; nothing is raised meanwhile, and
    ``wait`` returns after its time.

    :param client: returns a ``kubernetes_asyncio.client.ApiClient``, or an awaitable of one, which is closed
        here; called again when a watch failed, since credentials may have changed
    :param labels: of the objects
    :param kinds: of the objects, one watch each
    """
    watched = Watched()
    watches = [
        asyncio.create_task(_Watch(client, kind, namespace, labels, watched.changed).run()) for kind in kinds
    ]
    try:
        yield watched
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


class _Watch:
    """One watch that goes on until it is cancelled."""

    def __init__(
        self,
        client: Callable[[], Any],
        kind: str,
        namespace: str,
        labels: Mapping[str, str],
        changed: asyncio.Event,
    ) -> None:
        self._make, self._kind, self._namespace, self._changed = client, kind, namespace, changed
        self._path = _PATHS[kind].format(namespace=namespace)
        self._selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        # ``None``: begin with what is there now.
        self._version: str | None = None
        self._lost = False

    async def run(self) -> None:
        """Watch."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._with_a_client()
            # Whatever it is, the caller has its own clock; and it hears of it, once.
            except Exception as error:
                self._tell_lost(error)
            lasted = time.monotonic() - began > _LASTING_SECONDS
            failures = 0 if lasted else failures + 1
            if failures:
                await asyncio.sleep(min(0.25 * 2**failures, _LONGEST_BACKOFF) * random.uniform(0.5, 1.0))

    async def _with_a_client(self) -> None:
        """Watch again and again, as long as that goes well."""
        client = self._make()
        if inspect.isawaitable(client):
            client = await client
        try:
            lasted = True
            while lasted:
                began = time.monotonic()
                await self._once(client)
                lasted = time.monotonic() - began > _LASTING_SECONDS
        finally:
            # An error of closing, in the place of a cancellation, would make the watch go on.
            with suppress(Exception):
                await client.close()

    async def _once(self, client: Any) -> None:
        response = await client.call_api(
            self._path,
            "GET",
            query_params=self._query(),
            header_params={"Accept": _ACCEPT},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
        try:
            if response.status != 200:
                raise _refused(response.status, await response.text())
            self._tell_back()
            if self._version is None:
                # No event reports what was removed meanwhile.
                self._changed.set()
            while line := await response.content.readline():
                self._take(json.loads(line))
        except _GoneError:
            self._version = None
        finally:
            response.close()

    def _query(self) -> list[tuple[str, str]]:
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(_WATCH_SECONDS)),
            ("labelSelector", self._selector),
        ]
        return [*query, ("resourceVersion", self._version)] if self._version else query

    def _take(self, event: Mapping[str, Any]) -> None:
        thing = event["object"]
        if event["type"] == "ERROR":
            raise _refused(thing.get("code", 0), str(thing.get("message", thing)))
        self._version = thing["metadata"]["resourceVersion"]
        if event["type"] != "BOOKMARK":
            self._changed.set()

    def _tell_lost(self, error: Exception) -> None:
        if not self._lost:
            what = f"{self._kind}s of namespace {self._namespace}"
            log.warning("The watch on %s was lost: %s: %s", what, type(error).__name__, str(error)[:300])
        self._lost = True

    def _tell_back(self) -> None:
        if self._lost:
            log.info("The watch on %ss of namespace %s is back", self._kind, self._namespace)
        self._lost = False


class _RefusedError(Exception):
    """Raised when the server does not (go on to) tell what changes."""


class _GoneError(_RefusedError):
    """Raised when the server does not know any more what came after the last change."""


def _refused(status: int, text: str) -> _RefusedError:
    kind = _GoneError if status == _GONE else _RefusedError
    with suppress(ValueError, AttributeError):
        text = json.loads(text).get("message", text)
    return kind(f"{status}: {text}")
