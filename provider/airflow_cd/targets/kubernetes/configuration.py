"""
Configuration belongs to a release as its image does: two that run side by side each keep theirs.

A ConfigMap under one name can hold only one release's content. Whoever runs beside another one reads a copy
under a name of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from airflow_cd.targets.kubernetes.workload import Object, name_of


def config_maps(objects: Sequence[Object]) -> dict[str, Object]:
    """Return the ConfigMaps by name."""
    return {name_of(one): one for one in objects if one["kind"] == "ConfigMap" and one["apiVersion"] == "v1"}


def differing(ours: Sequence[Object], theirs: Sequence[Object]) -> set[str]:
    """Return the names of ConfigMaps that both have, with different content."""
    others = config_maps(theirs)
    return {
        name
        for name, one in config_maps(ours).items()
        if name in others and _content(one) != _content(others[name])
    }


def used(pod_spec: dict[str, Any]) -> set[str]:
    """Return the names of the ConfigMaps that pods read."""
    return {reference["name"] for reference in _references(pod_spec) if reference.get("name")}


def renamed(pod_spec: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return the spec of pods that read ConfigMaps of other names. :param names: old -> new"""
    pod_spec = deepcopy(pod_spec)
    for reference in _references(pod_spec):
        if reference.get("name") in names:
            reference["name"] = names[reference["name"]]
    return pod_spec


def copy_of(config_map: Object, name: str) -> Object:
    """Return a ConfigMap under another name. It may change: another candidate may need the name."""
    copied = deepcopy(config_map)
    copied["metadata"]["name"] = name
    copied.pop("immutable", None)
    return copied


def _content(config_map: Object) -> tuple[Any, Any]:
    return config_map.get("data") or {}, config_map.get("binaryData") or {}


def _references(pod_spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what names a ConfigMap, wherever pods may."""
    found: list[dict[str, Any] | None] = []
    for volume in pod_spec.get("volumes") or []:
        found.append(volume.get("configMap"))
        found += [one.get("configMap") for one in (volume.get("projected") or {}).get("sources") or []]
    for container in [*(pod_spec.get("containers") or []), *(pod_spec.get("initContainers") or [])]:
        found += [one.get("configMapRef") for one in container.get("envFrom") or []]
        found += [(one.get("valueFrom") or {}).get("configMapKeyRef") for one in container.get("env") or []]
    return [one for one in found if one]
