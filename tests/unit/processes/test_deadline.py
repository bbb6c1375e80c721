"""Deadlines, and cancellations that come at an awkward moment."""

from __future__ import annotations

import asyncio

import pytest

from airflow_cd.processes import deadline
from airflow_cd.processes.deadline import within


async def test_it_is_as_if_there_was_none_when_the_work_is_in_time() -> None:
    assert await within(60, asyncio.sleep(0, "done")) == "done"


async def test_what_the_work_raises_is_raised() -> None:
    async def fails() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await within(60, fails())


async def test_work_that_takes_longer_is_ended() -> None:
    ended = []

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, works())
    assert ended


async def test_a_cancellation_in_the_moment_of_the_end_counts_and_keeps_its_message() -> None:
    async def works() -> None:
        asyncio.get_running_loop().call_soon(waiting.cancel, "by a person")

    waiting = asyncio.create_task(within(60, works()))
    with pytest.raises(asyncio.CancelledError) as caught:
        await waiting
    assert caught.value.args == ("by a person",)


async def test_a_cancellation_that_the_work_turns_into_something_else_counts() -> None:
    async def works() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ProcessLookupError from None
        return "done"

    waiting = asyncio.create_task(within(60, works()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_work_that_does_not_end_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "_CLEARING_SECONDS", 0.01)
    go = asyncio.Event()

    async def works() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(asyncio.TimeoutError):
        await within(0.01, works())
    go.set()
