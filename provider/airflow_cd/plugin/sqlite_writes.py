"""
Keeps an API server on SQLite from blocking itself: one writing request at a time.

SQLite has one write lock for the whole database. Airflow 3.3.2 writes its audit log on the event loop: the
dependency ``action_logging`` (airflow/api_fastapi/logging/decorators.py) is ``async`` and commits. When
another request of the same process holds the write lock, it can release it only through that event loop.
The server then answers nothing until SQLite's busy timeout has passed, and fails both requests.
``docs/sqlite.md`` has details.

SQLite runs writers one after the other anyway, so a queue in front of it costs nothing. On other databases
this middleware passes every request through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# Applications of other plugins have paths of their own, and may keep a request open for long.
_AIRFLOW_PATHS = ("/api/", "/ui/", "/auth/", "/execution/")
# A request that is stuck must not stop all others for good. SQLite's own busy timeout is shorter.
_MAX_WAIT_SECONDS = 90.0


class SerializeSqliteWritesMiddleware:
    """
    ASGI middleware that runs requests which may write one after the other.

    :param app: the application behind it
    :param enabled: default: whether ``[database] sql_alchemy_conn`` names a SQLite database
    """

    def __init__(self, app: AsgiApp, enabled: bool | None = None) -> None:
        self._app = app
        self._enabled = _on_sqlite() if enabled is None else enabled
        self._lock = asyncio.Lock()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if not self._enabled or not _may_write(scope):
            await self._app(scope, receive, send)
            return
        # Before the turn: a slow client must not hold it.
        body = await _receive_body(receive)

        async def replay() -> Message:
            return body.pop(0) if body else await receive()

        async with self._turn():
            await self._app(scope, replay, send)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        acquiring = asyncio.ensure_future(self._lock.acquire())
        try:
            await asyncio.wait({acquiring}, timeout=_MAX_WAIT_SECONDS)
            yield
        finally:
            if not acquiring.cancel():  # it had ended: the turn was ours
                self._lock.release()


def _may_write(scope: MutableMapping[str, Any]) -> bool:
    if scope["type"] != "http" or scope["method"] in _READING:
        return False
    path = str(scope["path"]).removeprefix(str(scope.get("root_path", "")))
    return path.startswith(_AIRFLOW_PATHS)


async def _receive_body(receive: Receive) -> list[Message]:
    """Return the messages up to the end of the request's body, or to the client's disconnection."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _on_sqlite() -> bool:
    from airflow.configuration import conf

    return str(conf.get("database", "sql_alchemy_conn", fallback="")).startswith("sqlite")
