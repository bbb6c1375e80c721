"""Asks a git remote for its branch heads, again and again, without ever giving up or blocking."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timezone
from functools import partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")
Credentials = Callable[[], AbstractAsyncContextManager[dict[str, str]]]

_LONGEST_WAIT = 300.0
_SHORTEST_WAIT = 0.2
# A thousand repositories must not mean a thousand git processes at the same moment.
_MOST_POLLS = 16
_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
# Fetches take long; the threads that all triggers share are few.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="cd-git")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the function returns, run beside the event loop."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, partial(function, *args, **kwargs))


async def poll_heads(
    repository: str, interval: float, credentials: Credentials, log: Any
) -> AsyncGenerator[dict[str, str], None]:
    """
    Yield branch name -> SHA at every poll, for ever.

    A remote that does not answer is asked less and less often, at least every five minutes; the log says
    since when and why.

    :param interval: seconds between two polls
    :param credentials: opens the environment variables that carry git's credentials
    """
    from airflow_cd.sources.web import public_url

    name, failures, since = public_url(repository), 0, ""
    while True:
        try:
            heads = await _ask(repository, credentials)
        except Exception as error:  # whatever it is, the watch goes on
            since = since if failures else datetime.now(timezone.utc).isoformat(timespec="seconds")
            failures += 1
            delay = backoff(interval, failures)
            reason = str(error) or type(error).__name__
            log.warning(
                "Cannot read the heads of %s since %s (%s); next try in %.0f s", name, since, reason, delay
            )
        else:
            if failures:
                log.info("%s answers again; it did not since %s", name, since)
            failures, delay = 0, backoff(interval, 0)
            yield heads
        await asyncio.sleep(delay)


def backoff(interval: float, failures: int) -> float:
    """Return the seconds to wait: the interval, doubled per failure; a little less, so that polls spread."""
    longest = max(interval, _LONGEST_WAIT) if not failures else _LONGEST_WAIT
    seconds = min(max(interval, _SHORTEST_WAIT) * 2.0 ** min(failures, 16), longest)
    return seconds * random.uniform(0.8 if failures else 0.95, 1.0)


async def _ask(repository: str, credentials: Credentials) -> dict[str, str]:
    from airflow_cd.sources.git_commands import ls_remote

    loop = asyncio.get_running_loop()
    async with _slots.setdefault(loop, asyncio.Semaphore(_MOST_POLLS)), credentials() as env:
        return await ls_remote(repository, env=env)
