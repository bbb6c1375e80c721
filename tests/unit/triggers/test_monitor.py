"""The watch that goes on after a pipeline: real records, a real server that falls ill."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.releases import release_of
from tests.support.watching import Store, Watch, eventually, watching

from airflow_cd.releases import adapters
from airflow_cd.targets.local.layout import Layout
from airflow_cd.targets.record import Deployed, Record
from airflow_cd.triggers.monitor import MonitorTrigger

LONG_AGO = timedelta(hours=3)


class Place:
    """An environment whose record and health the test sets by hand."""

    def __init__(self, data: Path) -> None:
        self.status, self.asked = 200, 0
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.asked += 1
                self.send_response(place.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.layout = Layout(data / "local", "hello", "production")
        self.store = Store()

    def runs(self, generation: int, *, since: timedelta = timedelta(0)) -> None:
        """Let the record say that this generation runs."""
        now = datetime.now(timezone.utc)
        release = release_of(f"sha256:{generation:064x}", version=f"1.{generation}", at=now)
        deployed = Deployed(release=release, deployed_at=now - since, actor="test")
        self.layout.write_generation(Record(generation=generation, current=deployed), "127.0.0.1:1")
        self.layout.make_current(generation)

    def trigger(self, **check: Any) -> MonitorTrigger:
        environment = {
            "name": "production",
            "target": {"local": {"command": ["app"], "port": self.server.server_port}},
            "health": [{"http": "/", "healthy_after": 2, "failures": 2, "interval": "20ms", **check}],
            "monitor": {"bake_time": "1h", "window": "10s"},
        }
        trigger = MonitorTrigger(service="hello", environment=environment, poll_interval=0.05)
        classpath, kwargs = trigger.serialize()
        assert classpath == "airflow_cd.triggers.monitor.MonitorTrigger"
        made = MonitorTrigger(**kwargs)
        made.asset_state_store = self.store  # type: ignore[assignment]
        return made

    async def samples(self, more: int = 20) -> None:
        """Wait until so many more samples were taken."""
        wanted = self.asked + more
        await eventually(lambda: self.asked >= wanted)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(adapters, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(MonitorTrigger, "handover_seconds", 0.0)
    one = Place(tmp_path)
    yield one
    one.server.shutdown()
    one.server.server_close()


async def alarm(place: Place, watch: Watch) -> dict[str, Any]:
    """Let the service be healthy for a while and then not, until there is an alarm; return it."""
    while watch.is_quiet:
        for status in (200, 503):
            place.status = status
            wanted = place.asked + 5
            await eventually(lambda wanted=wanted: place.asked >= wanted or not watch.is_quiet)  # type: ignore[misc]
    return await watch.next()


def test_one_alarm_for_each_release_that_goes_bad(place: Place) -> None:
    async def scenario() -> None:
        place.runs(1)
        async with watching(place.trigger()) as watch:
            first = await alarm(place, watch)
            assert (first["service"], first["environment"]) == ("hello", "production")
            assert (first["generation"], first["digest"]) == (1, f"sha256:{1:064x}")
            assert "3 bad samples within 10s" in first["reason"]
            assert not first["samples"][-1]["ok"]
            await eventually(lambda: 1 in place.store.values.values())
            # As bad as before; only a deployment changes what can be done about it.
            place.runs(2)
            assert (await alarm(place, watch))["generation"] == 2

        # The triggerer was restarted, the release is as bad as it was.
        await eventually(lambda: 2 in place.store.values.values())
        async with watching(place.trigger()) as watch:
            place.runs(3)
            assert (await alarm(place, watch))["generation"] == 3

    asyncio.run(scenario())


def test_a_release_that_was_never_healthy_is_its_pipelines(place: Place) -> None:
    async def scenario() -> None:
        place.status = 503
        place.runs(1)
        async with watching(place.trigger()) as watch:
            await place.samples(50)
            assert watch.is_quiet

    asyncio.run(scenario())


def test_a_release_that_died_while_nobody_watched_is_noticed(place: Place) -> None:
    async def scenario() -> None:
        place.status = 503
        # Its pipeline has long had its verdict: 120 s for the check, and as much for a rollback.
        place.runs(1, since=timedelta(minutes=5))
        async with watching(place.trigger(timeout="120s")) as watch:
            assert (await watch.next())["generation"] == 1

    asyncio.run(scenario())


def test_after_the_bake_time_nothing_is_sampled(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []
    read = Layout.record
    monkeypatch.setattr(Layout, "record", lambda layout: (reads.append(1), read(layout))[1])  # type: ignore[func-returns-value]

    async def scenario() -> None:
        place.status = 503
        place.runs(1, since=LONG_AGO)
        async with watching(place.trigger()) as watch:
            await eventually(lambda: len(reads) > 5)
            assert place.asked == 0 and watch.is_quiet
            place.runs(2)
            assert (await alarm(place, watch))["generation"] == 2

    asyncio.run(scenario())


def test_a_record_that_cannot_be_read_ends_nothing(place: Place) -> None:
    async def scenario() -> None:
        place.runs(1)
        async with watching(place.trigger()) as watch:
            await place.samples()
            (place.layout.current / "record.json").write_text("{")
            await place.samples()
            place.runs(2)
            assert (await alarm(place, watch))["generation"] == 2

    asyncio.run(scenario())
