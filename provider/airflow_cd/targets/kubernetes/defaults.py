"""What manifests may leave out, and a server-side apply needs all the same."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

_TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job")


def with_protocols(obj: dict[str, Any]) -> dict[str, Any]:
    """
    Return the object with ``protocol: TCP`` at each port that says nothing.

    Protocols are part of the ports' keys, and servers before Kubernetes 1.23 do not know the default there
    (https://github.com/kubernetes/kubernetes/issues/104239).
    """
    obj = deepcopy(obj)
    for port in _ports(obj):
        port.setdefault("protocol", "TCP")
    return obj


def _ports(obj: dict[str, Any]) -> list[dict[str, Any]]:
    spec = obj.get("spec") or {}
    if obj["kind"] == "Service":
        return list(spec.get("ports") or [])
    pods = spec if obj["kind"] == "Pod" else _pods_of(obj["kind"], spec)
    containers = [*(pods.get("containers") or []), *(pods.get("initContainers") or [])]
    return [port for container in containers for port in container.get("ports") or []]


def _pods_of(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    elif kind not in _TEMPLATES:
        return {}
    return dict((spec.get("template") or {}).get("spec") or {})
