"""Releases of a small service as objects of Kubernetes."""

from __future__ import annotations

from typing import Any

from airflow_cd.targets.kubernetes.variants import ReleaseVariant

IMAGE = "registry.example:5000/shop/web"


def digest_of(number: int) -> str:
    return f"sha256:{number:064x}"


def deployment(
    number: int, replicas: int | None = 4, name: str = "web", labels: dict[str, str] | None = None
) -> dict[str, Any]:
    labels = labels or {"app": name}
    container = {
        "name": "web",
        "image": f"{IMAGE}@{digest_of(number)}",
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "envFrom": [{"configMapRef": {"name": "settings"}}],
    }
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": labels["app"]}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def service(name: str = "web", selector: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector or {"app": "web"}, "ports": ports, **spec},
    }


def config_map(number: int, name: str = "settings") -> dict[str, Any]:
    data = {"RELEASE": str(number)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def http_route(
    name: str = "web", version: str = "v1", refs: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [{"backendRefs": refs or [{"name": "web", "port": 80}]}],
        },
    }


def autoscaler(name: str = "web") -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    return {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 9},
    }


def objects(number: int, replicas: int | None = 4, *more: dict[str, Any]) -> list[dict[str, Any]]:
    return [config_map(number), deployment(number, replicas), service(), *more]


def side(number: int, place: str = "stable", content: list[dict[str, Any]] | None = None) -> ReleaseVariant:
    content = objects(number) if content is None else content
    return ReleaseVariant(content, place, digest_of(number), f"v{number}", number)
