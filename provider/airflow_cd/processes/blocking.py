"""
Calls that block, beside the event loop: in threads of their own for each thing they depend on.

asyncio's own executor has few threads, and resolves the host names of everything in the process. Six calls
that waited for one dead Docker engine left none for that, and healthy services looked bad.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 8
_pools: dict[Hashable, ThreadPoolExecutor] = {}


async def in_threads_of(remote: Hashable, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Return what the function returns. At most eight calls of one ``remote`` run at a time; others wait.

    A call that was cancelled goes on in its thread until it ends by itself: give it a timeout of its own.

    :param remote: what may keep it waiting: an engine, a cluster, a git host
    """
    pool = pool_of(remote, _THREADS)
    return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **kwargs))


def pool_of(remote: Hashable, threads: int) -> ThreadPoolExecutor:
    """Return the threads of a remote, at most so many: the first caller says how many."""
    if (pool := _pools.get(remote)) is None:
        pool = _pools.setdefault(remote, ThreadPoolExecutor(threads, thread_name_prefix="cd-blocking"))
    return pool
