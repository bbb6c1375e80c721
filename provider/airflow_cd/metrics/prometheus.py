"""
Measures by a PromQL query, asked of Prometheus or of what has its API (Thanos, Mimir, VictoriaMetrics).

The API is small: ``prometheus-api-client`` would bring pandas and numpy along, and cannot be awaited.
"""

from __future__ import annotations

from typing import Any

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import Logins, Reading
from airflow_cd.metrics.http_client import HttpAnswer, address, ask, login_of, number_of, quoted
from airflow_cd.model.analysis import PrometheusQuery
from airflow_cd.model.subject import Subject, fill_promql

_PATH = "/api/v1/query"


class PrometheusMetric:
    """
    What an instant query comes to; that no series matches, or NaN, is no data.

    :param query: what is asked
    :param logins: gives what the server is asked with
    """

    def __init__(self, query: PrometheusQuery, logins: Logins) -> None:
        self._query, self._logins = query, logins

    async def measure(self, subject: Subject) -> Reading:
        """
        Measure once.

        :raises MetricError: Prometheus refuses the query, or it comes to several values
        """
        query = self._query
        login = await login_of(query.conn_id, self._logins)
        base = "" if query.url is None else query.url.rstrip("/")
        # GET: roles that may only read are often refused anything else.
        answer = await ask(
            address(base + _PATH, subject, login),
            login,
            timeout=query.timeout,
            headers=query.headers,
            params={
                "query": fill_promql(query.query, subject),
                "timeout": f"{query.timeout.total_seconds():g}",
            },
        )
        return _reading(answer)


def _reading(answer: HttpAnswer) -> Reading:
    try:
        said = answer.parsed()
        if said["status"] != "success":
            told = quoted(f"{said.get('errorType', 'error')}: {said.get('error', '')}", answer.login)
            raise MetricError(f"Prometheus refuses the query (HTTP {answer.status}): {told}")
        found = _found(said["data"]["resultType"], said["data"]["result"])
        warnings = "; ".join(str(one) for one in said.get("warnings", ()))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise MetricError(f"{answer.place} does not answer like Prometheus (HTTP {answer.status})") from error
    warned = warnings and f"Prometheus warns: {quoted(warnings, answer.login)}"
    return Reading(found.value, "; ".join(filter(None, (found.detail, warned))))


def _found(kind: str, result: Any) -> Reading:
    if kind == "scalar":
        return _sample(result)
    if kind != "vector":
        raise MetricError(
            f"the query comes to a {kind}, not to one value; do not end it with a range, as in [5m]"
        )
    if len(result) > 1:
        shown = ", ".join(_labels(one["metric"]) for one in result[:2])
        raise MetricError(
            f"the query comes to {len(result)} values, not to one: {quoted(shown, None)}, ...; "
            "aggregate them with sum(...), avg(...) or max(...)"
        )
    if result and "value" not in result[0]:
        raise MetricError(
            "the query comes to a histogram, not to one value; use histogram_quantile(...), say"
        )
    return _sample(result[0]["value"]) if result else Reading(None, "no series matches the query")


def _sample(sample: Any) -> Reading:
    value = number_of(sample[1])
    return Reading(value, "" if value is not None else f"the query comes to {sample[1]}")


def _labels(metric: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in sorted(metric.items())) + "}"
