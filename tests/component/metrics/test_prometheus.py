"""Queries of a real Prometheus."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.support.answering import AnsweringServer
from tests.support.prometheus import Prometheus

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import MetricLogin, Reading
from airflow_cd.metrics.prometheus import PrometheusMetric
from airflow_cd.model.analysis import PrometheusQuery
from airflow_cd.model.subject import Subject


async def measure(url: str, subject: Subject, query: str, **settings: Any) -> Reading:
    async def no_logins(conn_id: str) -> MetricLogin:
        raise AssertionError(f"{conn_id} is not needed")

    made = PrometheusQuery.model_validate({"url": url, "query": query, "timeout": "20s", **settings})
    return await PrometheusMetric(made, no_logins).measure(subject)


async def test_a_query_is_measured_as_of_now(prometheus: Prometheus, subject: Subject) -> None:
    for value in (0.25, 0.5):
        prometheus.set({'now_ratio{app="hello"}': value, 'now_ratio{app="other"}': 7})
        assert await measure(prometheus.url, subject, 'now_ratio{app="${service}"}') == (value, "")


async def test_an_error_rate_is_computed_of_counters(prometheus: Prometheus, subject: Subject) -> None:
    bad, good = 'rq_total{app="hello",code="500"}', 'rq_total{app="hello",code="200"}'
    for round_ in range(1, 4):
        prometheus.set({bad: round_ * 10, good: round_ * 30})
    query = (
        'sum(increase(rq_total{app="${service}", code=~"5.."}[1m]))'
        ' / sum(increase(rq_total{app="${service}"}[1m]))'
    )
    reading = await measure(prometheus.url, subject, query)
    assert reading.value == pytest.approx(0.25)


async def test_a_scalar_is_a_value(prometheus: Prometheus, subject: Subject) -> None:
    assert (await measure(prometheus.url, subject, "scalar(vector(3)) * 2")).value == 6


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("misnamed_metric", "no series matches the query"),
        ("vector(0) / 0", "the query comes to NaN"),
        ("vector(1) / 0", r"the query comes to \+Inf"),
    ],
)
async def test_no_data_is_told_apart_from_a_value(
    prometheus: Prometheus, subject: Subject, query: str, why: str
) -> None:
    reading = await measure(prometheus.url, subject, query)
    assert reading.value is None
    assert reading.detail == why.replace("\\", "")


async def test_a_series_that_ends_is_no_data(prometheus: Prometheus, subject: Subject) -> None:
    prometheus.set({"ending": 1})
    assert (await measure(prometheus.url, subject, "ending")).value == 1
    prometheus.set({"ending": None})
    assert (await measure(prometheus.url, subject, "ending")).value is None


async def test_several_values_are_an_error_that_says_to_aggregate(
    prometheus: Prometheus, subject: Subject
) -> None:
    prometheus.set({'several{pod="a"}': 1, 'several{pod="b"}': 2})
    with pytest.raises(
        MetricError, match=r'2 values, not to one: .*pod="a".*aggregate them with sum'
    ) as told:
        await measure(prometheus.url, subject, "several")
    assert 'pod="b"' in str(told.value)


async def test_a_query_that_prometheus_does_not_understand_is_an_error_in_its_words(
    prometheus: Prometheus, subject: Subject
) -> None:
    with pytest.raises(MetricError, match=r"HTTP 400\): bad_data: .*parse error: unknown function .*summ"):
        await measure(prometheus.url, subject, "summ(up)")


@pytest.mark.parametrize(("query", "kind"), [("up[5m]", "matrix"), ("'text'", "string")])
async def test_a_query_that_comes_to_no_number_is_an_error(
    prometheus: Prometheus, subject: Subject, query: str, kind: str
) -> None:
    with pytest.raises(MetricError, match=f"comes to a {kind}, not to one value"):
        await measure(prometheus.url, subject, query)


async def test_a_wrong_address_of_the_server_is_told(prometheus: Prometheus, subject: Subject) -> None:
    with pytest.raises(MetricError, match=rf"{prometheus.url}/wrong/api/v1/query .*HTTP 404"):
        await measure(f"{prometheus.url}/wrong/", subject, "up")


async def test_any_value_matches_itself_and_nothing_else(prometheus: Prometheus, subject: Subject) -> None:
    versions = [
        '1" or vector(1) #',
        "1.2.0+b7",
        "1x2x0+b7",
        "a\\b",
        "it's",
        "v.*",
        "v1",
        "a|b$^",
        "a\nb",
        "é…",
    ]
    escaped = [one.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for one in versions]
    prometheus.set({f'itself{{version="{label}"}}': number for number, label in enumerate(escaped)})
    for number, version in enumerate(versions):
        judged = subject.model_copy(update={"version": version})
        for operator, quote in itertools.product(("=", "=~"), "\"'"):
            query = f"itself{{version{operator}{quote}${{version}}{quote}}}"
            assert (await measure(prometheus.url, judged, query)).value == number, (version, query)


async def test_warnings_are_kept_with_the_value(server: AnsweringServer, subject: Subject) -> None:
    """As Thanos has them, when a store is down and the value may be wrong."""
    data = {"resultType": "scalar", "result": [0, "1"]}
    server.answer({"status": "success", "data": data, "warnings": ["store a is down"]})
    assert await measure(server.url, subject, "up") == (1.0, "Prometheus warns: store a is down")


async def test_a_native_histogram_is_no_value(server: AnsweringServer, subject: Subject) -> None:
    found = [{"metric": {}, "histogram": [0, {"count": "1", "sum": "1"}]}]
    server.answer({"status": "success", "data": {"resultType": "vector", "result": found}})
    with pytest.raises(MetricError, match="comes to a histogram"):
        await measure(server.url, subject, "up")


@pytest.mark.parametrize(
    "content",
    [{}, [], {"status": "success"}, {"status": "success", "data": {"resultType": "vector", "result": [1]}}],
)
async def test_another_programs_answer_is_an_error(
    server: AnsweringServer, subject: Subject, content: Any
) -> None:
    server.answer(content)
    with pytest.raises(MetricError, match="does not answer like Prometheus"):
        await measure(server.url, subject, "up")
