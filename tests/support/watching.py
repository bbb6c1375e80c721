"""Runs event triggers and waits for what they yield."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger
from tests.support.git_server import GitServer

from airflow_cd.triggers.git_heads import GitHeadTrigger

SOON = 20.0


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds. :raises AssertionError: it does not, for too long"""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)


class Store:
    """The state store of one asset, as the triggerer gives it to a trigger."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.broken = False
        self.changed = asyncio.Event()

    async def aget(self, key: str, default: Any = None) -> Any:
        if self.broken:
            raise RuntimeError("the API server does not answer")
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value
        self.changed.set()

    async def holds(self, head: str) -> None:
        """Wait until this head is stored."""
        while head not in self.values.values():
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SOON)


class Watch:
    """A running trigger, and the payloads of its events."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._payloads: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(self._collect(events))

    async def _collect(self, events: AsyncIterator[Any]) -> None:
        async for event in events:
            self._payloads.put_nowait(json.loads(json.dumps(event.payload)))

    async def next(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._payloads.get(), SOON)

    @property
    def is_quiet(self) -> bool:
        return self._payloads.empty() and not self.task.done()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def watching(trigger: BaseEventTrigger) -> AsyncIterator[Watch]:
    """Run the trigger on its own until the end of the block."""
    watch = Watch(trigger.run())
    try:
        yield watch
    finally:
        await watch.stop()


def trigger_of(repository: str, tmp_path: Path, store: Store | None = None, **options: Any) -> GitHeadTrigger:
    """Return a trigger that polls often and keeps its mirrors in a folder of the test."""
    arguments = {"service": "hello", "poll_interval": 0.2, "cache_dir": str(tmp_path / "cache"), **options}
    trigger = GitHeadTrigger(repository=repository, **arguments)
    trigger.asset_state_store = store  # type: ignore[assignment]
    return trigger


async def polls(server: GitServer, more: int) -> None:
    """Wait until the remote was asked so many more times."""
    wanted = server.listings + more
    await eventually(lambda: server.listings >= wanted)
