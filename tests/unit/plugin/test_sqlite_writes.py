"""Requests that may write take turns on SQLite; nobody else waits."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from airflow_cd.plugin import sqlite_writes
from airflow_cd.plugin.sqlite_writes import Message, Receive, Send, SerializeSqliteWritesMiddleware

BODY: list[Message] = [
    {"type": "http.request", "body": b"a", "more_body": True},
    {"type": "http.request", "body": b"b", "more_body": False},
]


class Endpoint:
    """An application whose requests end when the test says so."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.bodies: list[bytes] = []
        self.may_end: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        path = scope["path"]
        self.entered.append(path)
        if scope["method"] != "GET":
            message = await receive()
            body = message["body"]
            while message["more_body"]:
                message = await receive()
                body += message["body"]
            self.bodies.append(body)
        await self.may_end.setdefault(path, asyncio.Event()).wait()


def ask(
    app: SerializeSqliteWritesMiddleware, method: str, path: str, body: list[Message] = BODY
) -> asyncio.Task[None]:
    left = [dict(message) for message in body]

    async def receive() -> Message:
        if left:
            return left.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: Message) -> None:
        raise AssertionError("nothing is answered here")

    scope = {"type": "http", "method": method, "path": path, "root_path": ""}
    return asyncio.ensure_future(app(scope, receive, send))


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def end(endpoint: Endpoint, path: str) -> None:
    endpoint.may_end.setdefault(path, asyncio.Event()).set()


async def test_writing_requests_run_one_after_the_other_and_keep_their_bodies() -> None:
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint, enabled=True)
    paths = ["/api/v2/pools", "/execution/task-instances/1/run", "/ui/clear", "/auth/token"]
    asked = [
        ask(app, method, path) for method, path in zip(("POST", "PATCH", "PUT", "DELETE"), paths, strict=True)
    ]
    for number, path in enumerate(paths):
        await settle()
        assert endpoint.entered == paths[: number + 1]
        end(endpoint, path)
    await asyncio.gather(*asked)
    assert endpoint.bodies == [b"ab"] * 4


async def test_reading_requests_and_other_applications_do_not_wait() -> None:
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint, enabled=True)
    writing = ask(app, "POST", "/api/v2/pools")
    others = [ask(app, "GET", "/api/v2/dags"), ask(app, "POST", "/another-plugin/endless")]
    await settle()
    assert set(endpoint.entered) == {"/api/v2/pools", "/api/v2/dags", "/another-plugin/endless"}
    for path in endpoint.entered:
        end(endpoint, path)
    await asyncio.gather(writing, *others)


async def test_a_slow_client_keeps_nobody_waiting() -> None:
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint, enabled=True)
    slow = ask(app, "POST", "/api/v2/slow", BODY[:1])
    quick = ask(app, "POST", "/api/v2/quick")
    end(endpoint, "/api/v2/quick")
    await quick
    assert endpoint.entered == ["/api/v2/quick"]
    slow.cancel()
    await asyncio.wait({slow})


@pytest.mark.parametrize("waits", [True, False], ids=["who waits", "whose turn it is"])
async def test_a_cancelled_request_gives_its_turn_back(waits: bool) -> None:
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint, enabled=True)
    first, second, third = [ask(app, "POST", f"/api/v2/{number}") for number in range(3)]
    await settle()
    cancelled = second if waits else first
    cancelled.cancel()
    await asyncio.wait({cancelled})
    for number in range(3):
        end(endpoint, f"/api/v2/{number}")
    await asyncio.gather(*({first, second, third} - {cancelled}))
    assert endpoint.entered[-1] == "/api/v2/2"


async def test_a_request_that_is_stuck_stops_others_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite_writes, "_MAX_WAIT_SECONDS", 0.05)
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint, enabled=True)
    stuck = ask(app, "POST", "/api/v2/stuck")
    end(endpoint, "/api/v2/next")
    await ask(app, "POST", "/api/v2/next")
    stuck.cancel()
    await asyncio.wait({stuck})
    # The one that did not wait for its turn must not have given away the turn of another request.
    end(endpoint, "/api/v2/after")
    await ask(app, "POST", "/api/v2/after")


@pytest.mark.parametrize(
    ("url", "serialized"),
    [("sqlite:////tmp/airflow.db?timeout=60", True), ("postgresql+psycopg2://airflow@db/airflow", False)],
)
async def test_it_looks_at_the_database_in_use(
    url: str, serialized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", url)
    endpoint = Endpoint()
    app = SerializeSqliteWritesMiddleware(endpoint)
    asked = [ask(app, "POST", f"/api/v2/{number}") for number in range(2)]
    await settle()
    assert len(endpoint.entered) == (1 if serialized else 2)
    for number in range(2):
        end(endpoint, f"/api/v2/{number}")
    await asyncio.gather(*asked)
