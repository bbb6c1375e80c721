"""Measurements with what an Airflow connection says; whatever happens, there is one, and in time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.answering import AnsweringServer, answering_server

from airflow_cd.exceptions import MetricError
from airflow_cd.hooks.metrics import login_of, take_measurement
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.subject import Subject

SUBJECT = Subject(
    service="hello", environment="production", version="1.2.0", revision="0" * 40, digest="sha256:abc"
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnsweringServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with answering_server() as server:
        yield server


def connect(monkeypatch: pytest.MonkeyPatch, **parts: Any) -> None:
    """Let there be a connection ``metrics``."""
    monkeypatch.setenv("AIRFLOW_CONN_METRICS", json.dumps({"conn_type": "http", **parts}))


async def taken(url: str, conn_id: str | None = None, timeout: str = "20s", **settings: Any) -> Measurement:
    http = {"url": url, "json": "$.rate", "conn_id": conn_id, "timeout": timeout}
    analysis = Analysis.model_validate({"http": http, "success": "< 0.05", **settings})
    return await take_measurement("error-rate", analysis, 3, SUBJECT)


@pytest.mark.parametrize(
    ("rate", "outcome", "detail"),
    [(0.01, "success", "0.01 is < 0.05"), (0.2, "failure", "0.2 is not < 0.05")],
)
async def test_a_value_becomes_a_measurement(
    server: AnsweringServer, rate: float, outcome: str, detail: str
) -> None:
    server.answer({"rate": rate})
    one = await taken(server.url)
    assert (one.analysis, one.step, one.value, one.outcome, one.detail) == (
        "error-rate",
        3,
        rate,
        outcome,
        detail,
    )


async def test_a_misnamed_value_does_not_pass(server: AnsweringServer) -> None:
    server.answer({"raet": 0.01})
    one = await taken(server.url)
    assert (one.value, one.outcome) == (None, "inconclusive")
    assert one.detail == f"there is no data (nothing at $.rate of {server.url})"


@pytest.mark.parametrize("policy", ["success", "failure", "error"])
async def test_what_no_data_says_can_be_chosen(server: AnsweringServer, policy: str) -> None:
    server.answer({})
    assert (await taken(server.url, no_data=policy)).outcome == policy


async def test_what_cannot_be_measured_is_an_error_and_no_failure(server: AnsweringServer) -> None:
    server.answer(b"down for maintenance", status=503)
    one = await taken(server.url)
    assert (one.value, one.outcome) == (None, "error")
    assert one.detail == f"{server.url} answers with HTTP 503"


async def test_a_server_that_says_nothing_is_an_error_in_time(server: AnsweringServer) -> None:
    server.answer({}, hangs=True)
    one = await taken(server.url, timeout="200ms")
    assert one.outcome == "error" and "within 0.2s" in one.detail


async def test_a_server_that_drips_is_an_error_in_time(server: AnsweringServer) -> None:
    """Each byte comes in time, all of them never do."""

    def drops() -> Iterator[bytes]:
        while not server.released.wait(0.02):
            yield b" "

    server.answer(drops)
    one = await taken(server.url, timeout="200ms")
    assert one.outcome == "error" and "within 0.2s" in one.detail


async def test_a_connection_that_does_not_exist_is_named() -> None:
    one = await taken("/rate", "nobody")
    assert one.outcome == "error" and "there is no connection 'nobody'" in one.detail


async def test_the_connections_login_is_used(
    server: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer({"rate": 0})
    host, port = server.server_address[:2]
    connect(monkeypatch, host=host, port=port, password="t0ken", extra={"headers": {"X-Tenant": "shop"}})
    assert (await taken("/rate/${service}", "metrics")).outcome == "success"
    asked = server.requests[0]
    assert (asked.target, asked.headers["Authorization"]) == ("/rate/hello", "Bearer t0ken")
    assert asked.headers["X-Tenant"] == "shop"


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        ({"host": "metrics.example"}, "http://metrics.example"),
        ({"host": "metrics.example", "schema": "https", "port": 9090}, "https://metrics.example:9090"),
        ({"host": "https://metrics.example/prom/", "port": 9090}, "https://metrics.example:9090/prom"),
        ({"host": "metrics.example", "conn_type": "https"}, "https://metrics.example"),
        ({"host": "metrics.example", "conn_type": "prometheus"}, "http://metrics.example"),
        ({"password": "t0ken"}, None),
    ],
)
async def test_a_connections_address_is_that_of_airflows_http_hook(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], url: str | None
) -> None:
    connect(monkeypatch, **parts)
    assert (await login_of("metrics")).base_url == url


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"host": "metrics.example", "schema": "ftp"}, "schema 'ftp'; write http or https"),
        ({"host": "file:///etc"}, "schema 'file'"),
        ({"extra": {"headers": ["a"]}}, "must map texts to texts"),
    ],
)
async def test_a_connection_that_cannot_be_used_says_why(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any], message: str
) -> None:
    connect(monkeypatch, **parts)
    with pytest.raises(MetricError, match=message):
        await login_of("metrics")


async def test_secrets_of_a_connection_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.log import redact  # type: ignore[attr-defined]

    connect(
        monkeypatch, host="metrics.example", password="pa55word", extra={"headers": {"X-Key": "k3y-value"}}
    )
    await login_of("metrics")
    assert redact("pa55word and k3y-value") == "*** and ***"
