"""
Takes the measurements of analyses, with the credentials of an Airflow connection.

Any connection with a host, a schema (``http`` or ``https``), a port, a login and a password does, such as one
of type ``http``. Login and password are basic authentication; a password without login is a bearer token;
``headers`` in the extra are sent along.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import MetricError
from airflow_cd.model.analysis import Analysis, Measurement
from airflow_cd.model.base import format_duration
from airflow_cd.model.text import printable
from airflow_cd.processes.deadline import within

if TYPE_CHECKING:
    from airflow_cd.metrics.base import Metric, MetricLogin, Reading
    from airflow_cd.model.subject import Subject

_LONGEST_DETAIL = 300


def open_metric(analysis: Analysis) -> Metric:
    """Return what the analysis measures; nothing is asked yet, and no connection read."""
    from airflow_cd.metrics import registry

    return registry.open_metric(analysis.query, login_of)


async def take_measurement(name: str, analysis: Analysis, step: int, subject: Subject) -> Measurement:
    """
    Take one measurement now. Never raises, and never outlasts the ``timeout`` of what is measured.

    :param name: of the analysis
    :param step: number of the strategy's step it is for
    :param subject: what is judged
    """
    at = datetime.now(timezone.utc)
    try:
        reading = await _measured(analysis, subject)
    except Exception as error:  # whatever it is, it says nothing about the release
        told = str(error) if isinstance(error, MetricError) else f"{type(error).__name__}: {error}"
        detail = printable(told, _LONGEST_DETAIL)
        return Measurement(analysis=name, step=step, at=at, value=None, outcome="error", detail=detail)
    outcome, reason = analysis.assess(reading.value)
    detail = f"{reason} ({reading.detail})" if reading.detail else reason
    return Measurement(
        analysis=name,
        step=step,
        at=at,
        value=reading.value,
        outcome=outcome,
        detail=printable(detail, _LONGEST_DETAIL),
    )


async def _measured(analysis: Analysis, subject: Subject) -> Reading:
    timeout = analysis.query.timeout
    try:
        return await within(timeout.total_seconds(), open_metric(analysis).measure(subject))
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise MetricError(f"it could not be measured within {format_duration(timeout)}") from error


async def login_of(conn_id: str) -> MetricLogin:
    """
    Return what the connection says, its secrets masked in logs. Does not block the event loop.

    :raises MetricError: there is no such connection, or it cannot be used
    """
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import amask_secret

    from airflow_cd.metrics.base import MetricLogin

    try:
        connection: Any = await Connection.async_get(conn_id)
    except AirflowNotFoundException as error:
        raise MetricError(f"there is no connection {conn_id!r}; add one of type http") from error
    headers = _headers(connection)
    for secret in filter(None, (connection.password, *headers.values())):
        await amask_secret(secret)
    return MetricLogin(
        conn_id=conn_id,
        base_url=_base_url(connection),
        user=connection.login or None,
        password=connection.password or None,
        headers=headers,
    )


def _headers(connection: Any) -> dict[str, str]:
    headers = connection.extra_dejson.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise MetricError(
            f"`headers` in the extra of connection {connection.conn_id!r} must map texts to texts"
        )
    return headers


def _base_url(connection: Any) -> str | None:
    """Return the address, read as Airflow's HTTP hook does it: the host may be a whole address."""
    host, port = connection.host, connection.port
    if not host:
        return None
    scheme, separator, rest = host.partition("://")
    if not separator:
        usual = "https" if connection.conn_type == "https" else "http"
        scheme, rest = connection.schema or usual, host
    if scheme not in ("http", "https"):
        raise MetricError(
            f"connection {connection.conn_id!r} has the schema {scheme!r}; write http or https there"
        )
    name, _, path = rest.rstrip("/").partition("/")
    return f"{scheme}://{name}{f':{port}' if port else ''}{f'/{path}' if path else ''}"
