"""Splits traffic by the Gateway API's ``HTTPRoute``: which share of the requests each Service receives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from math import gcd
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import Object, group_of, name_of

GROUP = "gateway.networking.k8s.io"
_VERSIONS = ("v1", "v1beta1")
# Which object it is, and what of it was looked at.
_WHICH = ("name", "namespace", "uid", "resourceVersion", "generation")
_Refs = list[dict[str, Any]]


def find_route(objects: Sequence[Object], name: str, live: Object | None = None) -> Object:
    """
    Return the HTTPRoute of this name: that of the manifests, else what is to be applied of the live one.

    Of a live one that is nothing but its rules, as of this version: everything else is another owner's.

    :param live: as the cluster has it, where the manifests have none
    :raises ManifestError: there is none, or of a version that is not known
    """
    for one in objects:
        if one["kind"] == "HTTPRoute" and group_of(one["apiVersion"]) == GROUP and name_of(one) == name:
            return _known(one)
    if live is None:
        raise ManifestError(
            f"there is no HTTPRoute {name!r}, neither in the manifests nor in the namespace. Correct "
            "`route:`, or leave it out to share requests out by the number of instances."
        )
    metadata = {key: live["metadata"][key] for key in _WHICH if key in live["metadata"]}
    rules = deepcopy((live.get("spec") or {}).get("rules") or [])
    return _known(
        {
            "apiVersion": live["apiVersion"],
            "kind": live["kind"],
            "metadata": metadata,
            "spec": {"rules": rules},
        }
    )


def weighted(route: Object, service: str, other: str, weight: int) -> Object:
    """
    Return the route with a Service's share of the requests shared out between it and another one.

    In every rule that refers to the Service; all else stays. Where a rule refers to further ones, they keep
    their part of all requests.

    :param weight: percent of the Service's share for ``other``
    :raises ManifestError: no rule refers to the Service
    """
    found = False

    def share(refs: _Refs) -> _Refs:
        nonlocal found
        base = next((ref for ref in refs if _refers(ref, route, service)), None)
        if base is None:
            return refs
        found = True
        ours, rest = _apart(refs, route, (service, other))
        if not any(_weight(ref) for ref in rest):
            mine, its, scale = 100 - weight, weight, 1
        else:
            total = sum(_weight(ref) for ref in ours)
            mine, its, scale = total * (100 - weight), total * weight, 100
            common = gcd(mine, its, *(scale * _weight(ref) for ref in rest))
            mine, its = mine // max(common, 1), its // max(common, 1)
            rest = [{**ref, "weight": scale * _weight(ref) // max(common, 1)} for ref in rest]
        return [{**base, "weight": mine}, {**base, "name": other, "weight": its}, *rest]

    changed = _mapped(route, share)
    if not found:
        raise ManifestError(
            f"no rule of HTTPRoute {name_of(route)!r} refers to Service {service!r}; add it to its "
            "backendRefs"
        )
    return changed


def without(route: Object, service: str, other: str) -> Object:
    """Return the route with all of a Service's share given back to it, and ``other`` gone."""

    def share(refs: _Refs) -> _Refs:
        if not any(_refers(ref, route, other) for ref in refs):
            return refs
        ours, rest = _apart(refs, route, (service, other))
        total = sum(_weight(ref) for ref in ours)
        return [{**ours[0], "name": service, "weight": total}, *rest]

    return _mapped(route, share)


def _known(route: Object) -> Object:
    version = route["apiVersion"].rpartition("/")[2]
    if version not in _VERSIONS:
        raise ManifestError(
            f"HTTPRoute {name_of(route)!r} is of version {version!r}; write {GROUP}/{_VERSIONS[0]}"
        )
    return route


def _mapped(route: Object, change: Callable[[_Refs], _Refs]) -> Object:
    route = deepcopy(route)
    for rule in (route.get("spec") or {}).get("rules") or []:
        if rule.get("backendRefs"):
            rule["backendRefs"] = change(rule["backendRefs"])
    return route


def _apart(refs: _Refs, route: Object, services: Sequence[str]) -> tuple[_Refs, _Refs]:
    ours = [ref for ref in refs if any(_refers(ref, route, name) for name in services)]
    return ours, [ref for ref in refs if ref not in ours]


def _refers(ref: dict[str, Any], route: Object, service: str) -> bool:
    here = route["metadata"].get("namespace")
    is_service = ref.get("kind", "Service") == "Service" and not ref.get("group")
    return is_service and ref.get("name") == service and ref.get("namespace", here) in (here, None)


def _weight(ref: dict[str, Any]) -> int:
    weight = ref.get("weight")
    return 1 if weight is None else int(weight)
