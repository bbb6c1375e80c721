"""
A deadline for what is awaited, in which no cancellation is lost.

``asyncio.wait_for`` loses one before Python 3.12 that comes in the moment of an answer
(https://github.com/python/cpython/issues/86296); a library may turn one into an error of its own. Airflow
cancels a trigger once: one that missed that would go on watching, or deploying, what it must leave
alone. Here the work is a task of its own, and who waits for it only waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# What was ended may have to clear up. What does not come to its end within this time is left to itself.
_CLEARING_SECONDS = 5.0


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """
    Return what ``work`` returns; raises what it raises.

    :raises asyncio.TimeoutError: it took longer; it was cancelled, and has ended, or does not end
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_CLEARING_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio would tell that nobody asked for it
