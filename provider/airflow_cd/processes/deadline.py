"""
A deadline for what is awaited: ``async with deadline(seconds)`` raises ``asyncio.TimeoutError`` after it.

``asyncio.wait_for`` is none before Python 3.12: cancelled in the moment in which its task ends, it returns,
and the cancellation is lost (https://github.com/python/cpython/issues/86296). Airflow cancels a trigger
once; one that missed that would go on watching, or deploying, what it was told to leave alone.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from asyncio import timeout as deadline
else:
    from async_timeout import timeout as deadline

__all__ = ["deadline"]
