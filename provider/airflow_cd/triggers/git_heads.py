"""Watches the heads of git branches: one poll per repository, however many services live in it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_cd.exceptions import RevisionNotFoundError, SourceError
from airflow_cd.hooks.adapters import open_repository

if TYPE_CHECKING:
    from collections.abc import Hashable

_MAX_BACKOFF_SECONDS = 300.0
_MOST_COMMITS = 20


class GitHeadTrigger(BaseEventTrigger):
    """
    Fires once for every new head of a branch that changes the service's folder.

    Branch heads are polled once per repository and connection, at the interval of the service that comes
    first. A poll is a snapshot of all heads and every service compares it with the head it saw last, so a
    poll that is missed costs nothing. That head is stored after its event was handed over: an event is
    delivered at least once, also over a restart of the triggerer. A branch seen for the first time fires.

    The payload has ``service``, ``repository``, ``branch``, ``revision``, ``previous``, ``total`` and
    ``commits`` (up to 20, newest first).

    :param service: name of the service
    :param repository: what git can read
    :param branch: the branch to watch
    :param path: the service's folder; a push that leaves it as it is does not fire
    :param poll_interval: seconds between two polls
    :param conn_id: connection of type ``cd_git``
    """

    def __init__(
        self,
        *,
        service: str,
        repository: str,
        branch: str = "main",
        path: str = ".",
        poll_interval: float = 30.0,
        conn_id: str | None = None,
    ) -> None:
        super().__init__()
        self.service = service
        self.repository = repository
        self.branch = branch
        self.path = path
        self.poll_interval = poll_interval
        self.conn_id = conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, from which the triggerer makes this trigger."""
        names = ("service", "repository", "branch", "path", "poll_interval", "conn_id")
        return f"{__name__}.GitHeadTrigger", {name: getattr(self, name) for name in names}

    def shared_stream_key(self) -> Hashable:
        """Return what the services of one repository have in common."""
        return ("cd-git-heads", self.repository, self.conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
        """Yield branch name -> SHA at every poll. A remote that is down is asked less and less often."""
        log = cls(**kwargs).log
        repository, interval = kwargs["repository"], max(float(kwargs.get("poll_interval", 30.0)), 0.2)
        failing_since, delay = None, interval
        while True:
            try:
                heads = await asyncio.wait_for(_heads(repository, kwargs.get("conn_id")), 120)
            except Exception as error:  # whatever it is, the watch goes on
                failing_since = failing_since or time.time()
                delay = min(max(delay, 1.0) * 2, _MAX_BACKOFF_SECONDS) * random.uniform(0.8, 1.2)
                log.warning(
                    "Cannot read the heads of %s for %d s now (%s); next try in %.0f s",
                    *(_public(repository), time.time() - failing_since, error or type(error).__name__, delay),
                )
            else:
                if failing_since is not None:
                    log.info("%s answers again", _public(repository))
                failing_since, delay = None, interval
                yield heads
            await asyncio.sleep(delay)

    async def filter_shared_stream(
        self, stream: AsyncIterator[dict[str, str]]
    ) -> AsyncIterator[TriggerEvent]:
        """Turn snapshots into one event per push that concerns the service."""
        seen = await self._load_cursor()
        async for heads in stream:
            head = heads.get(self.branch)
            if head is None or head == seen:
                continue
            try:
                payload = await asyncio.to_thread(self._payload, seen, head)
            except SourceError as error:
                self.log.warning("Head %s of %s cannot be read, trying again: %s", head, self.branch, error)
                continue
            if payload is not None:
                self.log.info("%s: new head %s of %s", self.service, head, self.branch)
                yield TriggerEvent(payload)
            await self._save_cursor(head)
            seen = head

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without sharing, where the triggerer does not share streams."""
        _, kwargs = self.serialize()
        async for event in self.filter_shared_stream(self.open_shared_stream(kwargs)):
            yield event

    @property
    def _cursor_key(self) -> str:
        content = "\n".join([self.repository, self.branch, self.path])
        return f"head-{sha256(content.encode()).hexdigest()[:16]}"

    async def _load_cursor(self) -> str | None:
        if self.asset_state_store is None:
            return None
        value = await self.asset_state_store.aget(self._cursor_key)
        return value if isinstance(value, str) else None

    async def _save_cursor(self, head: str) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(self._cursor_key, head)

    def _payload(self, previous: str | None, head: str) -> dict[str, Any] | None:
        """Return the event's content, or ``None`` when the push leaves the service's folder as it is."""
        with open_repository(self.repository, self.path, self.conn_id) as source:
            try:
                if previous and self.path != "." and source.tree(previous) == source.tree(head):
                    return None
            except RevisionNotFoundError:
                previous = None
            commits = source.changelog(previous, head, limit=200 if previous else 1) or [
                source.revision(head)
            ]
        fields = {"sha", "subject", "author_name", "url"}
        return {
            "service": self.service,
            "repository": _public(self.repository),
            "branch": self.branch,
            "revision": head,
            "previous": previous,
            "total": len(commits),
            "commits": [commit.model_dump(include=fields) for commit in commits[:_MOST_COMMITS]],
        }


def _public(repository: str) -> str:
    from airflow_cd.sources.web import public_url

    return public_url(repository)


async def _heads(repository: str, conn_id: str | None) -> dict[str, str]:
    from airflow_cd.sources.git_commands import ls_remote

    if conn_id is None:
        return await ls_remote(repository)
    from airflow_cd.hooks.git import GitHook

    # Reading a connection blocks, so it happens beside the event loop.
    credentials = GitHook(conn_id).environment()
    env = await asyncio.to_thread(credentials.__enter__)
    try:
        return await ls_remote(repository, env=env)
    finally:
        await asyncio.to_thread(credentials.__exit__, None, None, None)
