"""What an engine, a resolver or a network that is gone must not do: let healthy services be rolled back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.support.watching import eventually, watching
from tests.unit.triggers.test_monitor import LONG_AGO, Place, place  # noqa: F401

from airflow_cd.targets.local.target import LocalTarget
from airflow_cd.triggers.monitor import MonitorTrigger

WATCHED = {"bake_time": "4h", "window": "10s"}


@pytest.fixture
def silent_engine() -> Iterator[str]:
    """Serve what a frozen Docker engine does: connections, and no answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


def on_engine(engine: str, number: int) -> MonitorTrigger:
    environment = {
        "name": "production",
        "target": {"docker": {"port": 8000 + number, "engine": engine, "url": "http://localhost:1"}},
        "health": [{"http": "/", "interval": "20ms"}],
        "monitor": WATCHED,
    }
    return MonitorTrigger(service=f"dead-{number}", environment=environment, poll_interval=0.05)


def by_name(where: Place, **check: Any) -> MonitorTrigger:
    """Watch the local service by a host name, which must be looked up."""
    return where.trigger(http=f"http://localhost:{where.server.server_port}/", sample_timeout="1s", **check)


def test_a_frozen_engine_leaves_services_elsewhere_alone(place: Place, silent_engine: str) -> None:  # noqa: F811
    async def scenario() -> None:
        place.runs(1, since=LONG_AGO / 2)
        trigger = by_name(place)
        trigger.environment["monitor"] = WATCHED
        async with AsyncExitStack() as stack:
            for number in range(40):
                await stack.enter_async_context(watching(on_engine(silent_engine, number)))
            watch = await stack.enter_async_context(watching(trigger))
            await place.samples(60)
            assert watch.is_quiet

    asyncio.run(scenario())


def test_a_name_that_cannot_be_looked_up_is_no_alarm(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, asked, down = socket.getaddrinfo, [0], [False]

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked[0] += 1
        if down[0]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def scenario() -> None:
        place.runs(1)
        async with watching(by_name(place)) as watch:
            await place.samples(10)
            down[0] = True
            before = asked[0]
            await eventually(lambda: asked[0] > before + 30)
            assert watch.is_quiet
            # And when names are known again, what is bad is bad.
            place.status, down[0] = 503, False
            assert (await watch.next())["generation"] == 1

    asyncio.run(scenario())
    log = capsys.readouterr().out
    assert "cannot tell whether the service is healthy" in log
    assert "localhost cannot be looked up" in log
    assert "samples can be taken again" in log


def test_while_the_target_cannot_say_what_runs_there_is_no_alarm(
    place: Place,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, down = LocalTarget.record, [False]

    def record(target: LocalTarget) -> Any:
        if down[0]:
            raise OSError("the engine's machine is gone")
        return real(target)

    monkeypatch.setattr(LocalTarget, "record", record)

    async def scenario() -> None:
        place.runs(1, since=LONG_AGO / 2)
        trigger = place.trigger()
        trigger.environment["monitor"] = WATCHED
        async with watching(trigger) as watch:
            await place.samples(10)
            down[0], place.status = True, 503
            await eventually(lambda: "no alarm while the target cannot say what" in capsys.readouterr().out)
            assert watch.is_quiet
            down[0] = False
            assert (await watch.next())["generation"] == 1

    asyncio.run(scenario())
