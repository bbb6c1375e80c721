"""Numbers in what an HTTP server answers."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.answering import AnsweringServer

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import MetricLogin, Reading
from airflow_cd.metrics.http import HttpMetric
from airflow_cd.model.analysis import HttpQuery
from airflow_cd.model.subject import Subject


async def measure(server: AnsweringServer, subject: Subject, **settings: Any) -> Reading:
    async def no_logins(conn_id: str) -> MetricLogin:
        raise AssertionError(f"{conn_id} is not needed")

    query = HttpQuery.model_validate({"url": f"{server.url}/stats?a=b", "timeout": "20s", **settings})
    return await HttpMetric(query, no_logins).measure(subject)


@pytest.mark.parametrize(
    ("content", "path", "value"),
    [
        (0.5, "$", 0.5),
        ({"a": {"b": [1, 2]}}, "$.a.b[1]", 2.0),
        ({"a": {"b": [1, 2]}}, "$['a']['b'][0]", 1.0),
        ([{"name": "x", "rate": 1}, {"name": "y", "rate": 2}], "$[?@.name == 'y'].rate", 2.0),
        ({"healthy": True}, "$.healthy", 1.0),
        ({"healthy": False}, "$.healthy", 0.0),
        ({"big": 10**400}, "$.big", None),
    ],
)
async def test_the_path_says_which_number(
    server: AnsweringServer, subject: Subject, content: Any, path: str, value: float | None
) -> None:
    server.answer(content)
    assert (await measure(server, subject, json=path)).value == value


async def test_a_name_that_is_not_there_is_no_data_and_said_to_be_missing(
    server: AnsweringServer, subject: Subject
) -> None:
    server.answer({"rate": 0})
    reading = await measure(server, subject, json="$.raet")
    assert reading == (None, f"nothing at $.raet of {server.url}/stats")


async def test_null_is_no_data(server: AnsweringServer, subject: Subject) -> None:
    server.answer({"rate": None})
    assert (await measure(server, subject, json="$.rate")).value is None


async def test_several_numbers_are_an_error_that_says_how_many(
    server: AnsweringServer, subject: Subject
) -> None:
    server.answer([1, 2, 3])
    with pytest.raises(MetricError, match=r"there are 3 values at \$\[\*\]"):
        await measure(server, subject, json="$[*]")


@pytest.mark.parametrize("status", [204, 400, 401, 404, 500])
async def test_only_success_is_an_answer(server: AnsweringServer, subject: Subject, status: int) -> None:
    server.answer(b"" if status == 204 else b"not\nnow", status=status)
    with pytest.raises(MetricError, match=f"HTTP {status}"):
        await measure(server, subject)


async def test_the_request_is_as_told(server: AnsweringServer, subject: Subject) -> None:
    server.answer(1)
    await measure(server, subject, method="POST", headers={"X-Scope-OrgID": "shop"})
    asked = server.requests[0]
    assert (asked.method, asked.target, asked.headers["X-Scope-OrgID"]) == ("POST", "/stats?a=b", "shop")
    assert "Authorization" not in asked.headers


async def test_a_path_that_goes_too_deep_is_an_error(server: AnsweringServer, subject: Subject) -> None:
    server.answer(b'{"a":' * 400 + b"1" + b"}" * 400)
    with pytest.raises(MetricError, match=r"\$\.\.b"):
        await measure(server, subject, json="$..b")
