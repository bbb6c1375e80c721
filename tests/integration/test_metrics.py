"""``airflow cd metrics`` on a running Airflow: what it prints, and what reaches a metrics back end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from harness.airflow import RunningAirflow
from harness.waiting import wait_until
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.integration.services import TestService

pytestmark = [pytest.mark.scheduler, pytest.mark.exhaustive]

MakeService = Callable[..., TestService]


class Collector(ThreadingHTTPServer):
    """An OpenTelemetry collector that keeps the values of gauges, and the sums of histograms, by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values: dict[str, float] = {}

    def take(self, request: ExportMetricsServiceRequest) -> None:
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        self.values[metric.name] = point.as_double or point.as_int
                    for histogram in (
                        *metric.histogram.data_points,
                        *metric.exponential_histogram.data_points,
                    ):
                        self.values[metric.name] = histogram.sum


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Collector)
        self.server.take(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_four_keys_of_a_service_that_failed_once(
    service: MakeService, airflow: RunningAirflow, collector: Collector
) -> None:
    hello = service("deployment")
    hello.run().wait_for("success", timeout=180)
    hello.commit("second", sick_in="production")
    hello.run().wait_for("failed", timeout=240)
    hello.commit("third")
    hello.run().wait_for("success", timeout=180)
    wait_until(lambda: len(hello.history()) == 4, "all changes are in the history", timeout=120)

    options = ("--file", str(airflow.dags_folder / f"{hello.name}.yaml"), "--user", "bob")
    options += ("--api-url", airflow.url, "--days", "2")  # type: ignore[assignment]
    env = {
        "AIRFLOW_CD_PASSWORD": airflow.password("bob"),
        "COLUMNS": "200",
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    printed = airflow.run("cd", "metrics", *options, "--json", **env)  # type: ignore[arg-type]
    assert printed.returncode == 0, printed.stderr
    measured = json.loads(printed.stdout.splitlines()[-1])["services"][hello.name]
    changes = [event for event in hello.history() if event["kind"] == "deployed"]
    assert (measured["deployments"], measured["failed"], measured["deployment_frequency"]) == (3, 1, 1.5)
    assert measured["change_failure_rate"] == pytest.approx(1 / 3)
    assert measured["lead_time"] == sorted(change["lead_time"] for change in changes)[1]
    assert measured["time_to_restore"] > 0

    prefix = f"airflow.cd.dora.{hello.name}"
    assert collector.values[f"{prefix}.deployment_frequency"] == 1.5
    assert collector.values[f"{prefix}.change_failure_rate"] == pytest.approx(1 / 3)
    assert collector.values[f"{prefix}.lead_time"] == pytest.approx(measured["lead_time"] * 1000)
    assert collector.values[f"{prefix}.time_to_restore"] == pytest.approx(measured["time_to_restore"] * 1000)
    assert collector.values["airflow.cd.dora.deployment_frequency"] == 1.5

    table = airflow.run("cd", "metrics", hello.name, *options, **env).stdout  # type: ignore[arg-type]
    assert "TIME TO RESTORE" in table and "33%" in table and "all services" in table
