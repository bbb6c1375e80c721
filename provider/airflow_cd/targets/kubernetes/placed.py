"""One release in its place: all of its objects as an environment is to hold them."""

from __future__ import annotations

from collections.abc import Set
from copy import deepcopy
from dataclasses import dataclass

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.configuration import config_maps
from airflow_cd.targets.kubernetes.slots import (
    CANARY,
    COLOURS,
    PREVIEW,
    STABLE,
    Key,
    ReleaseVariant,
    by_key,
    deployment_in,
    key_of,
    marked,
    service_to,
    slot_name,
)
from airflow_cd.targets.kubernetes.workload import (
    WORKLOADS,
    Object,
    described,
    find_service,
    find_workload,
    image_of,
    is_scaled,
    name_of,
    workloads_of,
)

Workload = tuple[str, str]


@dataclass(frozen=True)
class ReleaseObjects:
    """
    One release, and what its strategy is about.

    :param workload: the Deployment; ``None`` where a rolling release has several workloads
    :param service: the Service that sends requests to it, if there is one
    :param size: how many instances it has when it gets all requests
    :param scaled: whether somebody else than the manifests says how many
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
        :param own: see :func:`~airflow_cd.targets.kubernetes.slots.deployment_in`
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
