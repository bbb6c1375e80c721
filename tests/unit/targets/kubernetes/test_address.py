"""Where a Service answers."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.targets.kubernetes.target import url_of

SETTINGS = KubernetesTargetSettings(namespace="shop", manifests="k8s")
WEB = {"name": "http", "port": 80, "nodePort": 30080}


def service(ports: list[dict[str, Any]], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.7", "ports": ports, **spec},
        "status": status or {},
    }


@pytest.mark.parametrize(
    ("ports", "url"),
    [
        ([WEB], "http://10.96.0.7"),
        ([{"port": 8080}], "http://10.96.0.7:8080"),
        ([{"port": 443}], "https://10.96.0.7"),
        ([{"name": "https", "port": 8443}], "https://10.96.0.7:8443"),
        ([{"name": "https-web", "port": 8443}], "https://10.96.0.7:8443"),
        ([{"port": 8443, "appProtocol": "https"}], "https://10.96.0.7:8443"),
        ([{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}], "http://10.96.0.7:8080"),
        ([{"name": "metrics", "port": 9090}, {"name": "https", "port": 443}], "https://10.96.0.7"),
        ([{"name": "http-admin", "port": 81}, {"name": "http", "port": 80}], "http://10.96.0.7"),
        ([{"name": "grpc", "port": 50051}, {"name": "other", "port": 1}], "http://10.96.0.7:50051"),
        ([{"port": 53, "protocol": "UDP"}], None),
        ([], None),
    ],
)
def test_the_port_is_the_one_that_is_meant_for_people(ports: list[dict[str, Any]], url: str | None) -> None:
    assert url_of(service(ports), SETTINGS) == url


def test_a_headless_service_has_no_address() -> None:
    assert url_of(service([WEB], clusterIP="None"), SETTINGS) is None
    assert url_of({"spec": {"ports": [WEB]}}, SETTINGS) is None


def test_a_node_port_is_used_where_nodes_can_be_reached() -> None:
    one = service([WEB], type="NodePort")
    assert url_of(one, SETTINGS) == "http://10.96.0.7"
    assert url_of(one, SETTINGS, node="192.0.2.2") == "http://192.0.2.2:30080"
    assert url_of(one, SETTINGS, node="2001:db8::2") == "http://[2001:db8::2]:30080"


def test_a_load_balancer_answers_once_it_has_an_address() -> None:
    assert url_of(service([WEB], type="LoadBalancer"), SETTINGS) is None
    named = {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}
    assert url_of(service([WEB], named, type="LoadBalancer"), SETTINGS) == "http://lb.example"
    numbered = {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}
    assert url_of(service([{"port": 443}], numbered, type="LoadBalancer"), SETTINGS) == "https://192.0.2.9"


def test_another_name_is_that_name() -> None:
    elsewhere = {"spec": {"type": "ExternalName", "externalName": "shop.example"}}
    assert url_of(elsewhere, SETTINGS) == "http://shop.example"
    elsewhere["spec"]["ports"] = [{"name": "https", "port": 443}]  # type: ignore[assignment]
    assert url_of(elsewhere, SETTINGS) == "https://shop.example"


def test_what_the_settings_say_comes_first() -> None:
    settings = KubernetesTargetSettings(namespace="shop", manifests="k8s", url="https://shop.example")
    assert url_of(service([WEB]), settings) == "https://shop.example"
