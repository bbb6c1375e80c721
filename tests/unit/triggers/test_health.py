"""Health checks against real servers: good, bad, hanging and dribbling ones."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from harness.ports import any_free

from airflow_cd.model.health import HealthCheck
from airflow_cd.triggers import health
from airflow_cd.triggers.health import HealthTrigger

# 200 MB, once it is decompressed twice.
BOMB = gzip.compress(gzip.compress(bytes(200_000_000), 1), 9)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    released = threading.Event()
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.path == "/hang":
            self.released.wait(30)
        if self.path == "/dribble":
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                while not self.released.wait(0.05):
                    self.wfile.write(b"x")
            except OSError:
                return
        if self.path == "/bomb":
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip, gzip")
            self.send_header("Content-Length", str(len(BOMB)))
            self.end_headers()
            self.wfile.write(BOMB)
            return
        if self.path == "/once":
            if getattr(self, "was_asked", False):
                self.close_connection = True  # as a server does whose idle time is over
                return
            self.was_asked = True
        flaky = self.path == "/flaky" and self.asked % 2
        self.answer(503 if self.path == "/bad" or flaky else 302 if self.path == "/moved" else 200)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "5")
        self.send_header("Location", "/")
        self.end_headers()
        self.wfile.write(b"ready")

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that give up are the point


@pytest.fixture
def url() -> Iterator[str]:
    Handler.released.clear()
    Handler.asked = 0
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        Handler.released.set()
        server.shutdown()


async def verdict(
    url: str, *checks: dict[str, Any], started_at: float | None = None, settle: float = 0
) -> dict[str, Any]:
    fast = {"interval": "20ms", "sample_timeout": "200ms", "timeout": "10s", "failures": 2}
    made = [HealthCheck.model_validate({**fast, **check}) for check in checks]
    trigger = HealthTrigger.of(made, url)
    classpath, kwargs = trigger.serialize()
    assert classpath == "airflow_cd.triggers.health.HealthTrigger"
    assert kwargs["settle"] == 6.0
    kwargs["settle"] = settle
    if started_at is not None:
        kwargs["started_at"] = started_at
    # As the triggerer does it: created again from what was stored.
    events = [event async for event in HealthTrigger(**kwargs).run()]
    assert len(events) == 1
    payload: dict[str, Any] = events[0].payload
    return payload


@pytest.mark.parametrize(
    "check",
    [
        {"http": "/"},
        {"http": "/", "body": "ready", "latency": "5s"},
        {"http": "/moved", "status": 302},
        {"http": "/once", "failures": 0},
        {"command": ["python", "-c", "import os; assert os.environ['CD_URL']"], "sample_timeout": "10s"},
    ],
)
async def test_good_services_are_healthy(url: str, check: dict[str, Any]) -> None:
    found = await verdict(url, check)
    assert found["healthy"], found["reason"]
    (one,) = found["verdicts"].values()
    assert [sample["ok"] for sample in one["samples"]] == [True] * 3


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"http": "/bad"}, "HTTP 503, expected 200"),
        ({"http": "/moved"}, "HTTP 302, expected 200"),
        ({"http": "/", "body": "steady"}, "lacks 'steady'"),
        ({"http": "/", "latency": "0s"}, "slower than 0s"),
        ({"http": "/hang"}, "no answer within 0.2s"),
        ({"http": "/dribble"}, "no answer within 0.2s"),
        ({"http": "/flaky", "healthy_after": 2}, "HTTP 503"),
        ({"command": ["sh", "-c", "echo no database; exit 3"]}, "exit code 3: no database"),
        ({"command": ["sleep", "60"]}, "no answer within 0.2s"),
        ({"command": ["no-such-program"]}, "no-such-program"),
    ],
)
async def test_bad_services_are_unhealthy(url: str, check: dict[str, Any], says: str) -> None:
    found = await verdict(url, check)
    assert not found["healthy"]
    assert says in found["reason"]


async def test_a_compressed_answer_is_not_decompressed(url: str) -> None:
    """821 bytes of gzip within gzip took 800 MiB, and stalled every watch of the triggerer."""
    tracemalloc.start()
    found = await verdict(url, {"http": "/bomb"})
    wanted = await verdict(url, {"http": "/bomb", "body": "ready"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["healthy"], found["reason"]
    assert not wanted["healthy"] and "compressed" in wanted["reason"]
    assert peak < 20_000_000


async def test_a_command_that_writes_without_end_is_killed_in_time_and_kept_short(url: str) -> None:
    tracemalloc.start()
    found = await verdict(url, {"command": ["yes", "x" * 100], "sample_timeout": "1s"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not found["healthy"] and "no answer within 1s" in found["reason"]
    assert peak < 20_000_000


async def test_ports(url: str) -> None:
    port = int(url.rpartition(":")[2])
    assert (await verdict(url, {"tcp": port}))["healthy"]
    assert (await verdict(url, {"tcp": f"127.0.0.1:{port}"}))["healthy"]
    assert not (await verdict(url, {"tcp": any_free()[0]}))["healthy"]


async def test_one_bad_check_decides_and_same_paths_are_told_apart(url: str) -> None:
    found = await verdict(url, {"http": "/"}, {"http": "/", "body": "steady"}, {"http": "/hang"})
    assert not found["healthy"]
    assert "http / (2): " in found["reason"]


async def test_a_restarted_triggerer_does_not_start_the_time_anew(url: str) -> None:
    began = time.monotonic()
    sick = {"http": "/", "status": 404, "failures": 1000, "timeout": "60s"}
    found = await verdict(url, sick, started_at=time.time() - 61)
    assert not found["healthy"]
    assert "not healthy within 1m" in found["reason"]
    assert time.monotonic() - began < 30, "the time began again"


@pytest.mark.parametrize("seconds", [86_400, -3_600], ids=["forward", "back"])
async def test_a_clock_that_was_set_says_nothing_about_the_service(url: str, seconds: float) -> None:
    """Nor does a triggerer that was down for longer than the timeout: a healthy release stays."""
    found = await verdict(url, {"http": "/", "timeout": "60s"}, started_at=time.time() - seconds)
    assert found["healthy"], found["reason"]
    sick = {"http": "/", "status": 404, "failures": 1000, "timeout": "300ms"}
    found = await verdict(url, sick, started_at=time.time() - seconds, settle=0.1)
    assert not found["healthy"]


async def test_what_a_service_says_is_shown_on_one_line_and_obeyed_by_no_terminal(url: str) -> None:
    says = "import sys; sys.exit('\\x1b[2J\\x1b]0;owned\\x07 \\u202edone')"
    check = {"command": ["python", "-c", says], "sample_timeout": "10s", "failures": 0}
    found = await verdict(url, check)
    assert "exit code 1: \ufffd[2J\ufffd]0;owned\ufffd \ufffddone" in found["reason"]


async def test_the_event_waits_until_airflow_has_noticed_that_the_task_deferred(url: str) -> None:
    began = time.time()
    assert (await verdict(url, {"http": "/"}, settle=1.5))["healthy"]
    assert time.time() - began >= 1.5


async def test_cancelling_leaves_nothing_behind(url: str) -> None:
    check = HealthCheck.model_validate({"command": ["sleep", "60"], "sample_timeout": "30s"})

    async def watch() -> None:
        async for _ in HealthTrigger.of([check], url).run():
            pass

    before = asyncio.all_tasks()
    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() <= before


async def test_cancelled_while_it_is_answered_it_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(*_: object) -> None:
        asyncio.get_running_loop().call_soon(task.cancel)

    async def watch() -> None:
        await health.take_sample(HealthCheck(http="/"), url)
        for _ in range(3):
            await asyncio.sleep(0)

    monkeypatch.setattr(health, "_look", look)
    task = asyncio.create_task(watch())
    with pytest.raises(asyncio.CancelledError):
        await task
