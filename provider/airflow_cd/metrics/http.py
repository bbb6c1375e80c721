"""Measures a number in the JSON that an HTTP server answers."""

from __future__ import annotations

from airflow_cd.exceptions import MetricError
from airflow_cd.metrics.base import Logins, Reading
from airflow_cd.metrics.http_client import HttpAnswer, address, ask, login_of, number_of
from airflow_cd.model.analysis import HttpQuery
from airflow_cd.model.subject import Subject
from airflow_cd.processes.blocking import in_threads_of


class HttpMetric:
    """
    One number in an answer; that there is nothing at its place, or null, is no data.

    :param query: where it is
    :param logins: gives what the server is asked with
    """

    def __init__(self, query: HttpQuery, logins: Logins) -> None:
        self._query, self._logins = query, logins

    async def measure(self, subject: Subject) -> Reading:
        """
        Measure once.

        :raises MetricError: no such answer, status other than 2xx, no number, or several
        """
        query = self._query
        login = await login_of(query.conn_id, self._logins)
        answer = await ask(
            address(query.url, subject, login),
            login,
            timeout=query.timeout,
            method=query.method,
            headers=query.headers,
        )
        if not 200 <= answer.status < 300:
            raise MetricError(f"{answer.place} answers with HTTP {answer.status}")
        # Paths can be slow: they may search all of it, and have regular expressions.
        return await in_threads_of("json paths", _found, answer, query.json_path)


def _found(answer: HttpAnswer, path: str) -> Reading:
    from jsonpath_rfc9535 import JSONPathError, find

    try:
        nodes = find(path, answer.parsed())
    except (JSONPathError, RecursionError) as error:
        raise MetricError(f"{path} cannot be looked up in what {answer.place} answers: {error}") from error
    if not nodes:
        return Reading(None, f"nothing at {path} of {answer.place}")
    if len(nodes) > 1:
        told = f"there are {len(nodes)} values at {path} of {answer.place}"
        raise MetricError(f"{told}; write a path to one of them")
    value = number_of(nodes[0].value)
    return Reading(value, f"{path} of {answer.place} is null or no finite number" if value is None else "")
