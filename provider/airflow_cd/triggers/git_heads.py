"""Watches the heads of git branches: one poll per repository, for all services in it."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_cd.exceptions import RevisionNotFoundError
from airflow_cd.model.repository_url import host_of, public_url
from airflow_cd.processes.blocking import in_threads_of
from airflow_cd.processes.deadline import within

if TYPE_CHECKING:
    from airflow.sdk.types import Logger

    from airflow_cd.model.release import Commit
    from airflow_cd.sources.git import GitSource

Credentials = Callable[[], AbstractAsyncContextManager[dict[str, str]]]

_LONGEST_WAIT = 300.0
_SHORTEST_WAIT = 0.2


class _Polls:
    """
    What is going on in one event loop: a thousand repositories must not mean as many git processes at once.

    Each host has slots of its own, and remotes that did not answer last time share a few: neither a host that
    is down nor a hundred of them take the others' turns.
    """

    PER_HOST = 8
    SUSPECTS = 8
    ALL = 32

    def __init__(self) -> None:
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._suspects, self._all = asyncio.Semaphore(self.SUSPECTS), asyncio.Semaphore(self.ALL)

    @asynccontextmanager
    async def slot(self, repository: str, *, suspect: bool) -> AsyncIterator[None]:
        """Wait for a turn."""
        host = self._hosts.setdefault(host_of(repository), asyncio.Semaphore(self.PER_HOST))
        async with host, self._suspects if suspect else self._all:
            yield


_polls: WeakKeyDictionary[asyncio.AbstractEventLoop, _Polls] = WeakKeyDictionary()


class Pace:
    """
    How often a repository is polled: at the shortest interval of those that wait for its heads.

    :param interval: seconds, as long as nobody waits
    """

    def __init__(self, interval: float) -> None:
        self._usual, self._wanted = interval, Counter[float]()
        self._changed = asyncio.Event()

    @property
    def interval(self) -> float:
        """Return the seconds between two polls."""
        return min(self._wanted, default=self._usual)

    @contextmanager
    def wanted(self, interval: float) -> Iterator[None]:
        """Poll at least this often during the block."""
        self._wanted[interval] += 1
        self._changed.set()
        try:
            yield
        finally:
            self._wanted -= Counter([interval])

    async def sleep(self, failures: int) -> None:
        """Wait until the next poll is due; a service that comes meanwhile may want it earlier."""
        began = time.monotonic()
        while True:
            self._changed.clear()
            left = began + backoff(self.interval, failures) - time.monotonic()
            if left <= 0:
                return
            try:
                await within(left, self._changed.wait())
            except (asyncio.TimeoutError, TimeoutError):
                return


async def poll_heads(
    repository: str, pace: Pace, credentials: Credentials, log: Logger
) -> AsyncGenerator[dict[str, str], None]:
    """
    Yield branch name -> SHA at every poll, for ever.

    A remote that does not answer is asked less and less often, at least every five minutes; the log says
    since when and why.

    :param pace: how often
    :param credentials: opens the environment variables that carry git's credentials
    """
    name, failures, since = public_url(repository), 0, ""
    while True:
        try:
            heads = await _ask(repository, credentials, suspect=failures > 0)
        except Exception as error:  # whatever it is, the watch goes on
            since = since if failures else datetime.now(timezone.utc).isoformat(timespec="seconds")
            failures += 1
            reason = str(error) or type(error).__name__
            seconds = backoff(pace.interval, failures)
            log.warning(
                "Cannot read the heads of %s since %s (%s); next try in about %.0f s",
                *(name, since, reason, seconds),
            )
        else:
            if failures:
                log.info("%s answers again; it did not since %s", name, since)
            failures = 0
            yield heads
        await pace.sleep(failures)


def backoff(interval: float, failures: int) -> float:
    """Return the seconds to wait: the interval, doubled per failure; a little less, so that polls spread."""
    longest = max(interval, _LONGEST_WAIT) if not failures else _LONGEST_WAIT
    seconds = min(max(interval, _SHORTEST_WAIT) * 2.0 ** min(failures, 16), longest)
    return seconds * random.uniform(0.8 if failures else 0.95, 1.0)


async def _ask(repository: str, credentials: Credentials, *, suspect: bool) -> dict[str, str]:
    from airflow_cd.sources.git_commands import ls_remote

    loop = asyncio.get_running_loop()
    if (polls := _polls.get(loop)) is None:
        polls = _polls[loop] = _Polls()
    async with polls.slot(repository, suspect=suspect), credentials() as env:
        return await ls_remote(repository, env=env)


# By event loop, and by what a repository's services have in common.
_paces: WeakValueDictionary[tuple[int, Hashable], Pace] = WeakValueDictionary()

_MOST_COMMITS = 20


class GitHeadTrigger(BaseEventTrigger):
    """
    Fires once for every new head of a branch that changes the service's folder.

    Branch heads are polled once per repository and connection, at the shortest interval of its services.
    A poll is a snapshot of all heads and every service compares it with the head it saw last, so a
    poll that is missed costs nothing. That head is stored after its event was handed over: an event is
    delivered at least once, also over a restart of the triggerer. A branch seen for the first time fires.
    While the commits cannot be fetched, a new head fires all the same: a push is never lost.

    The payload has ``service``, ``repository`` (without credentials), ``branch``, ``revision``,
    ``previous`` (``None`` the first time), ``commits`` (up to 20, newest first, each with ``sha``,
    ``subject``, ``author_name`` and ``url``; only ``sha`` when they cannot be fetched) and ``total``.

    :param service: name of the service
    :param repository: what git can read
    :param branch: the branch to watch
    :param path: the service's folder; a push that leaves it as it is does not fire
    :param poll_interval: seconds between two polls
    :param conn_id: connection of type ``cd_git``
    :param cache_dir: where mirrors lie; ``None`` is the folder ``git`` in ``[cd] data_dir``
    """

    # The triggerer collects events once a second and passes them on. A head is stored when that is done:
    # one that was stored earlier would lose its event if the triggerer ended in between.
    handover_seconds = 3.0

    def __init__(
        self,
        *,
        service: str,
        repository: str,
        branch: str = "main",
        path: str = ".",
        poll_interval: float = 30.0,
        conn_id: str | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.service = service
        self.repository = repository
        self.branch = branch
        self.path = path
        self.poll_interval = poll_interval
        self.conn_id = conn_id
        self.cache_dir = cache_dir

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments, from which the triggerer makes this trigger."""
        names = ("service", "repository", "branch", "path", "poll_interval", "conn_id", "cache_dir")
        return f"{__name__}.GitHeadTrigger", {name: getattr(self, name) for name in names}

    def shared_stream_key(self) -> Hashable:
        """Return what the services of one repository have in common."""
        return ("cd-git-heads", self.repository, self.conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[dict[str, str]]:
        """Yield branch name -> SHA at every poll. A remote that is down is asked less and less often."""
        trigger = cls(**kwargs)
        polls = poll_heads(trigger.repository, trigger._pace(), trigger._credentials, trigger.log)
        async with aclosing(polls):
            async for heads in polls:
                yield heads

    async def filter_shared_stream(
        self, shared_stream: AsyncIterator[dict[str, str]]
    ) -> AsyncIterator[TriggerEvent]:
        """Turn snapshots into one event per push that concerns the service."""
        with self._pace().wanted(self.poll_interval):
            async with aclosing(self._events(shared_stream)) as events:
                async for event in events:
                    yield event

    def _pace(self) -> Pace:
        """Return the pace of this repository, which its services share while one of them waits."""
        key = (id(asyncio.get_running_loop()), self.shared_stream_key())
        if (pace := _paces.get(key)) is None:
            pace = _paces[key] = Pace(self.poll_interval)
        self._kept_pace = pace
        return pace

    async def _events(
        self, shared_stream: AsyncIterator[dict[str, str]]
    ) -> AsyncGenerator[TriggerEvent, None]:
        cursor = _Cursor(self)
        gone = False
        async for heads in shared_stream:
            if not await cursor.load():
                continue
            head = heads.get(self.branch)
            if head is None and not gone:
                self.log.warning("%s: waiting for branch %s, which is not there", self.service, self.branch)
            gone = head is None
            if head is None or head == cursor.seen:
                continue
            payload = await self._payload(cursor.seen, head)
            if payload is not None:
                self.log.info("%s: new head %s of %s", self.service, head, self.branch)
                yield TriggerEvent(payload)
                await asyncio.sleep(self.handover_seconds)
            await cursor.save(head)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch without sharing, where the triggerer does not share streams."""
        _, kwargs = self.serialize()
        async with aclosing(self.open_shared_stream(kwargs)) as stream:  # type: ignore[type-var]
            async for event in self.filter_shared_stream(stream):
                yield event

    async def _payload(self, previous: str | None, head: str) -> dict[str, Any] | None:
        """Return the event's content, or ``None`` when the push leaves the service's folder as it is."""
        try:
            async with self._credentials() as env:
                changes = await in_threads_of(
                    ("git", host_of(self.repository)), self._changes, env, previous, head
                )
        except Exception as error:  # the head is known, and that is what counts
            self.log.warning(
                "%s: the commits up to %s cannot be read, so the event names only this one: %s",
                *(self.service, head, error),
            )
            changes = [{"sha": head}], 1
        if changes is None:
            self.log.info("%s: head %s of %s leaves %s as it is", self.service, head, self.branch, self.path)
            return None
        return {
            "service": self.service,
            "repository": public_url(self.repository),
            "branch": self.branch,
            "revision": head,
            "previous": previous,
            "commits": changes[0],
            "total": changes[1],
        }

    def _changes(
        self, env: dict[str, str], previous: str | None, head: str
    ) -> tuple[list[dict[str, Any]], int] | None:
        """Return the newest commits and the number of all, or ``None`` when the folder is the same."""
        from airflow_cd.releases.adapters import data_dir
        from airflow_cd.sources.git import GitSource

        cache = Path(self.cache_dir) if self.cache_dir else data_dir() / "git"
        source = GitSource(self.repository, path=self.path, cache_dir=cache, env=env)
        if previous is None:
            return [_summary(source.commit(head))], 1
        if source.path != "." and _same_folder(source, previous, head):
            return None
        # A branch that was set back to an older commit has no new ones.
        commits = source.changelog(previous, head, limit=_MOST_COMMITS) or [source.commit(head)]
        return [_summary(commit) for commit in commits], max(source.count(previous, head), 1)

    def _credentials(self) -> AbstractAsyncContextManager[dict[str, str]]:
        if self.conn_id is None:
            return nullcontext({})
        from airflow_cd.hooks.git import GitHook

        return GitHook(self.conn_id).aenvironment()


class _Cursor:
    """The head a service saw last, kept in the state store of its asset, when there is one."""

    def __init__(self, trigger: GitHeadTrigger) -> None:
        self.seen: str | None = None
        self._store = trigger.asset_state_store
        self._log = trigger.log
        self._loaded = self._store is None
        content = "\n".join([trigger.repository, trigger.branch, trigger.path])
        self._key = f"head-{sha256(content.encode()).hexdigest()[:16]}"

    async def load(self) -> bool:
        """Return whether it is known which head was seen last."""
        if not self._loaded and self._store is not None:
            try:
                value = await self._store.aget(self._key)
            except Exception as error:  # asked again at the next poll; guessing would fire twice
                self._log.warning("Cannot read which head was seen last, trying again: %s", error)
                return False
            self.seen = value if isinstance(value, str) else None
            self._loaded = True
        return True

    async def save(self, head: str) -> None:
        self.seen = head
        if self._store is None:
            return
        try:
            await self._store.aset(self._key, head)
        except Exception as error:  # this run knows; only a restart would fire again
            self._log.warning("Cannot store the head that was seen last: %s", error)


def _summary(commit: Commit) -> dict[str, Any]:
    return commit.model_dump(include={"sha", "subject", "author_name", "url"})


def _same_folder(source: GitSource, previous: str, head: str) -> bool:
    try:
        return source.find_tree(previous) == source.find_tree(head)
    except RevisionNotFoundError:  # force-pushed away, so there is nothing to compare with
        return False
