"""Which metrics there are; each is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from airflow_cd.model.analysis import HttpQuery, PrometheusQuery

if TYPE_CHECKING:
    from airflow_cd.metrics.base import Logins, Metric

METRICS = {
    "http": "airflow_cd.metrics.http:HttpMetric",
    "prometheus": "airflow_cd.metrics.prometheus:PrometheusMetric",
}
_NAMES = {HttpQuery: "http", PrometheusQuery: "prometheus"}


def open_metric(query: HttpQuery | PrometheusQuery, logins: Logins) -> Metric:
    """
    Return what measures this; nothing is asked yet.

    :param logins: gives what servers are asked with
    """
    module, _, attribute = METRICS[_NAMES[type(query)]].partition(":")
    adapter = getattr(import_module(module), attribute)
    metric: Metric = adapter(query, logins)
    return metric
