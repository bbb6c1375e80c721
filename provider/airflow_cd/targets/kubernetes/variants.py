"""The variants of a release that run side by side: their names, labels, configuration and objects."""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import (
    PREFIX,
    WORKLOADS,
    Object,
    described,
    find_service,
    find_workload,
    group_of,
    image_of,
    is_scaled,
    name_of,
    selector_of,
    workloads_of,
)
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.strategy import StrategyChoice


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
    """
    Return the spec of pods that read ConfigMaps of other names.

    :param names: old -> new
    """
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
    """
    Return the slot in which the next release is to stay.

    :param current_place: that of what runs now
    """
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
    :param own: names of the ConfigMaps whose copies it reads
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
    """
    Return the Service, sending requests to one slot only.

    :param place: ``None`` is to all of them
    """
    service = deepcopy(service)
    if place is not None:
        service["spec"]["selector"] = {**selector_of(service), TRACK: place}
    return service


def service_beside(service: Object, suffix: str, place: str) -> Object:
    """
    Return a Service for one slot alone, inside the cluster only.

    :param suffix: of its name
    """
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


Workload = tuple[str, str]


@dataclass(frozen=True)
class ReleaseObjects:
    """
    One release, and what its strategy is about.

    :param workload: the Deployment; ``None`` where a rolling release has several workloads
    :param service: the Service that sends requests to it, if there is one
    :param size: how many instances it has when it gets all requests
    :param scaled: whether an autoscaler, and not the manifests, sets the number of replicas
    """

    side: ReleaseVariant
    workload: Object | None
    service: Object | None
    size: int
    scaled: bool

    @property
    def deployment(self) -> Object:
        """Return the Deployment of a release whose strategy needs one."""
        assert self.workload is not None, "checked where this was made"
        return self.workload

    @property
    def slot(self) -> Workload | None:
        """Return kind and name of the workload in its place."""
        return (
            None
            if self.workload is None
            else (self.workload["kind"], slot_name(self.workload, self.side.place))
        )

    @property
    def workloads(self) -> list[Workload]:
        """Return kind and name of all workloads, each in its place."""
        mine = [self.slot] if self.slot is not None else []
        return mine + [
            (one["kind"], name_of(one)) for one in workloads_of(self.side.objects) if one is not self.workload
        ]

    def instances(
        self, replicas: int | None, place: str | None = None, own: Set[str] = frozenset()
    ) -> list[Object]:
        """
        Return the Deployment in a slot, after the ConfigMaps that are its own there.

        :param replicas: ``None`` is as many as the manifests say, if they do
        :param place: the slot; ``None`` is its place
        :param own: see :func:`~airflow_cd.targets.kubernetes.variants.deployment_in`
        """
        place = place or self.side.place
        if replicas is None and (place != STABLE or not self.scaled):
            replicas = self.size
        if place in COLOURS:
            own = set(config_maps(self.side.objects))
        return deployment_in(self.deployment, self.side, place, replicas, own=own)

    def all(self, track: str | None = None, replicas: int | None = None) -> dict[Key, Object]:
        """
        Return all objects, in the place of the release.

        :param track: the slot to which the Service sends requests, ``None`` is all
        """
        found: dict[Key, Object] = {}
        for one in self.side.objects:
            if one is self.workload and one["kind"] == "Deployment":
                found.update(by_key(self.instances(replicas)))
            elif one["kind"] in WORKLOADS:
                found[key_of(one)] = self._beside(one)
            elif one is self.service:
                found[key_of(one)] = service_to(one, track)
            else:
                found[key_of(one)] = deepcopy(one)
        return found

    def _beside(self, workload: Object) -> Object:
        workload = marked(workload, self.side, STABLE)
        if is_scaled(self.side.objects, workload):
            workload["spec"].pop("replicas", None)
        return workload


def build_release_objects(
    settings: KubernetesTargetSettings,
    strategy: StrategyChoice | None,
    side: ReleaseVariant,
    replicas: int | None = None,
) -> ReleaseObjects:
    """
    Return a release in its place.

    :param strategy: that it is brought by; where it needs none, several workloads are fine
    :param replicas: how many instances there are where the manifests do not say
    :raises ManifestError: its objects are not what the strategy can work with
    """
    image = image_of(side.objects, side.digest)
    if strategy is None and side.place == STABLE:
        try:
            workload = find_workload(side.objects, settings, image, kinds=WORKLOADS)
            service = find_service(side.objects, settings, workload)
        except ManifestError:
            return ReleaseObjects(side, None, None, 1, scaled=False)
    else:
        workload = find_workload(side.objects, settings, image)
        service = find_service(side.objects, settings, workload)
    said = workload["spec"].get("replicas")
    hpa = is_scaled(side.objects, workload)
    if hpa and side.place in COLOURS:
        raise ManifestError(
            f"a HorizontalPodAutoscaler scales {described(workload)}, which blue_green runs under the names "
            "of two colours; leave it out, or use canary or rolling"
        )
    size = said if said is not None and not hpa else replicas
    size = next(one for one in (size, said, 1) if one is not None)
    return ReleaseObjects(side, workload, service, size, scaled=hpa or said is None)


def check(strategy: StrategyChoice, release: ReleaseObjects) -> None:
    """:raises ManifestError: the strategy lacks something, or a name it needs is taken or too long"""
    canary = strategy.canary
    if release.service is None and (canary is None or canary.route is not None):
        raise ManifestError(
            f"no Service selects the pods of {described(release.deployment)}, so that there are no requests "
            "to be switched; add one, or use rolling"
        )
    for obj, suffix in _needed(strategy, release):
        slot_name(obj, suffix)
    taken = set(by_key(release.side.objects)) & set(made_by(release))
    for _, kind, name in sorted(taken):
        raise ManifestError(
            f"the manifests have a {kind}/{name}, a name that strategies need for their own; rename it"
        )


def _needed(strategy: StrategyChoice, release: ReleaseObjects) -> list[tuple[Object, str]]:
    if strategy.canary is None:
        needed = [(release.deployment, colour) for colour in COLOURS]
        return needed + ([(release.service, PREVIEW)] if release.service is not None else [])
    needed = [(release.deployment, CANARY)]
    by_route = strategy.canary.route is not None and release.service is not None
    return needed + ([(release.service, CANARY)] if by_route and release.service is not None else [])


def made_by(release: ReleaseObjects) -> list[Key]:
    """Return what strategies may have made beside a release's own objects."""
    found: list[Key] = []
    if release.service is not None:
        name = name_of(release.service)
        found += [("", "Service", f"{name}-{suffix}") for suffix in (CANARY, PREVIEW)]
    for suffix in (CANARY, *COLOURS):
        if release.workload is not None and release.workload["kind"] == "Deployment":
            found.append(("apps", "Deployment", f"{name_of(release.workload)}-{suffix}"))
        found += [("", "ConfigMap", f"{name}-{suffix}") for name in config_maps(release.side.objects)]
    return found
