"""
Slots: the places in which a release of a service runs, so that two can run side by side.

``stable`` is the manifests' own Deployment, under its own name and selector, which cannot change. The others
are copies of it: ``<name>-canary``, ``<name>-blue`` and ``<name>-green``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.configuration import config_maps, copy_of, renamed, used
from airflow_cd.targets.kubernetes.objects import PREFIX, group_of
from airflow_cd.targets.kubernetes.workload import Object, described, name_of, selector_of

TRACK = f"{PREFIX}track"
STABLE, CANARY, BLUE, GREEN = "stable", "canary", "blue", "green"
COLOURS = (BLUE, GREEN)
PREVIEW = "preview"
_LONGEST = {"Service": 63, "Deployment": 253, "ConfigMap": 253}
# What only one Service can have, or would make a second one reachable from outside.
_ITS_OWN = (
    "clusterIPs",
    "externalIPs",
    "externalName",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
)
Key = tuple[str, str, str]


@dataclass(frozen=True)
class ReleaseVariant:
    """
    One release as an environment runs it.

    :param objects: its manifests, as they are, with the image's digest
    :param place: the slot in which it is to stay: ``stable``, ``blue`` or ``green``
    :param generation: of the record, with it as what runs
    """

    objects: Sequence[Object]
    place: str
    digest: str
    version: str
    generation: int


def place_of(strategy: StrategyChoice | None, current_place: str | None) -> str:
    """Return the slot in which the next release is to stay. :param current_place: that of what runs now"""
    if strategy is None or strategy.blue_green is None:
        return STABLE
    return GREEN if current_place == BLUE else BLUE


def key_of(obj: Object) -> Key:
    """Return what makes an object this one: group, kind and name."""
    return group_of(obj["apiVersion"]), obj["kind"], name_of(obj)


def by_key(objects: Collection[Object]) -> dict[Key, Object]:
    """Return objects by what makes them these."""
    return {key_of(one): one for one in objects}


def slot_name(obj: Object, suffix: str) -> str:
    """
    Return what an object is called in a slot, or for one.

    :raises ManifestError: that is too long for Kubernetes
    """
    if suffix == STABLE:
        return name_of(obj)
    name, longest = f"{name_of(obj)}-{suffix}", _LONGEST[obj["kind"]]
    if len(name) > longest:
        raise ManifestError(
            f"{described(obj)}: the strategy needs a {obj['kind']} {name!r} beside it, whose name may have "
            f"{longest} characters; give it a name of at most {longest - len(suffix) - 1}"
        )
    return name


def marked(workload: Object, side: ReleaseVariant, place: str) -> Object:
    """Return a workload that says, and whose pods say, which release they are of, and in which slot."""
    workload = deepcopy(workload)
    release = {f"{PREFIX}digest": side.digest, f"{PREFIX}version": side.version}
    # Not in the template: applying the same again must not restart anything.
    _add(workload["metadata"], "annotations", {**release, f"{PREFIX}generation": str(side.generation)})
    metadata = workload["spec"]["template"].setdefault("metadata", {})
    _add(metadata, "labels", {TRACK: place})
    _add(metadata, "annotations", release)
    return workload


def deployment_in(
    deployment: Object, side: ReleaseVariant, place: str, replicas: int | None, *, own: Set[str]
) -> list[Object]:
    """
    Return a release's Deployment in a slot, after the ConfigMaps that are its own there.

    :param replicas: ``None`` leaves that to others
    :param own: names of the ConfigMaps of which it reads copies
    """
    deployment = marked(deployment, side, place)
    spec = deployment["spec"]
    spec.pop("replicas", None)
    if replicas is not None:
        spec["replicas"] = replicas
    if place == STABLE:
        return [deployment]
    deployment["metadata"]["name"] = slot_name(deployment, place)
    _add(deployment["metadata"], "labels", {TRACK: place})
    selector = spec.setdefault("selector", {})
    _add(selector, "matchLabels", {TRACK: place})
    pods = spec["template"]["spec"]
    mine = {name: one for name, one in config_maps(side.objects).items() if name in own & used(pods)}
    names = {name: slot_name(one, place) for name, one in mine.items()}
    spec["template"]["spec"] = renamed(pods, names)
    copies = [copy_of(one, names[name]) for name, one in mine.items()]
    for one in copies:
        _add(one["metadata"], "labels", {TRACK: place})
    return [*copies, deployment]


def service_to(service: Object, place: str | None) -> Object:
    """Return the Service, sending requests to one slot only. :param place: ``None`` is to all of them"""
    service = deepcopy(service)
    if place is not None:
        service["spec"]["selector"] = {**selector_of(service), TRACK: place}
    return service


def service_beside(service: Object, suffix: str, place: str) -> Object:
    """Return a Service for one slot alone, inside the cluster only. :param suffix: of its name"""
    metadata: dict[str, Any] = {
        "name": slot_name(service, suffix),
        "labels": dict(service["metadata"].get("labels") or {}),
    }
    metadata["labels"][TRACK] = place
    if "namespace" in service["metadata"]:
        metadata["namespace"] = service["metadata"]["namespace"]
    spec: dict[str, Any] = {
        name: value for name, value in deepcopy(service["spec"]).items() if name not in _ITS_OWN
    }
    if spec.get("clusterIP") != "None":
        spec.pop("clusterIP", None)
    spec["type"] = "ClusterIP"
    for port in spec.get("ports") or []:
        port.pop("nodePort", None)
    beside = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    return service_to(beside, place)


def _add(mapping: dict[str, Any], name: str, entries: dict[str, str]) -> None:
    mapping[name] = {**(mapping.get(name) or {}), **entries}
