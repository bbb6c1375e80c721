"""The transition from one release to another: what all of its phases share, and how replicas are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import (
    Object,
    described,
    name_of,
    pod_labels,
    selector_of,
    selects,
    workloads_of,
)
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Progress
from airflow_cd.model.strategy import CanaryStep, StrategyChoice
from airflow_cd.targets.kubernetes.traffic import find_route, weighted
from airflow_cd.targets.kubernetes.variants import (
    CANARY,
    COLOURS,
    PREVIEW,
    Key,
    ReleaseObjects,
    by_key,
    differing,
    service_beside,
    service_to,
    slot_name,
)


class Share(NamedTuple):
    """Instances of what ran before, and of what is coming."""

    stable: int
    canary: int


def split_replicas(size: int, weight: int) -> Share:
    """
    Return the instances by which requests are shared out when a Service sends as many to each.

    Between nothing and everything both have at least one, so that there is something to measure, and
    something to go back to. Their sum is ``size``; only where that is 1, each has one.

    :param size: how many there are to be
    :param weight: percent for what is coming
    """
    if size <= 0 or weight <= 0:
        return Share(max(size, 0), 0)
    if weight >= 100:
        return Share(0, size)
    if size == 1:
        return Share(1, 1)
    canary = min(max((size * weight + 50) // 100, 1), size - 1)
    return Share(size - canary, canary)


def replicas_for_weight(size: int, weight: int) -> int:
    """Return how many of ``size`` instances can serve this percentage of the requests."""
    return -(-size * weight // 100)


def weights(steps: Sequence[CanaryStep], progress: Progress) -> tuple[int, int]:
    """
    Return what what is coming got before, and what it is to get, in percent.

    When everything is being given to it, or back, these are the last two shares that it got one by one.
    """
    taken = [step.weight for step in steps[: progress.step + 1] if step.weight is not None]
    before, after = ([0, 0, *taken])[-2:]
    return before, after


Objects = dict[Key, Object]


@dataclass(frozen=True)
class Transition:
    """
    What comes, and what ran before.

    :param fast: without steps
    :param occupied: see :func:`~airflow_cd.targets.kubernetes.desired_state.desired_state`
    :param serving: see there
    :param live_route: see there
    """

    settings: KubernetesTargetSettings
    strategy: StrategyChoice | None
    progress: Progress
    candidate: ReleaseObjects
    stable: ReleaseObjects
    fast: bool
    occupied: bool
    serving: int | None
    live_route: Object | None

    @property
    def canary(self) -> bool:
        """Return whether the candidate has a slot of its own until it gets everything."""
        return self.strategy is not None and self.strategy.canary is not None and not self.fast

    @property
    def preview(self) -> bool:
        """Return whether the candidate has a Service of its own until it gets everything."""
        return self.strategy is not None and self.strategy.blue_green is not None and not self.fast

    @property
    def route(self) -> str | None:
        """Return the name of the HTTPRoute that shares requests out."""
        return self.strategy.route if self.strategy is not None else None

    @property
    def by_number(self) -> bool:
        """Return whether requests are shared out by the number of instances."""
        return self.canary and self.route is None

    @property
    def in_place(self) -> bool:
        """Return whether the candidate is to stay in the very workload in which the stable release runs."""
        return self.candidate.slot == self.stable.slot

    @property
    def promoting(self) -> bool:
        """Return whether everything was being given to the candidate already."""
        return self.fast or self.strategy is None or self.progress.step >= len(self.strategy.steps)

    @property
    def weights(self) -> tuple[int, int]:
        """Return what the candidate got before, and what it is to get, in percent."""
        if self.fast or self.strategy is None:
            return 0, 0
        return weights(self.strategy.steps, self.progress)

    @property
    def shares(self) -> tuple[Share, Share]:
        """Return the instances of both before, and as they are to be."""
        before, after = self.weights
        return split_replicas(self.stable.size, before), split_replicas(self.stable.size, after)

    @property
    def track(self) -> str | None:
        """Return the slot that alone gets requests by the Service until the switch; ``None`` is all slots."""
        if self.by_number:
            return None
        place = self.stable.side.place
        if place in COLOURS or self.route is not None or self.candidate.side.place != place:
            return place
        return None

    def canary_slot(self, replicas: int) -> Objects:
        """Return what the candidate has of its own until it gets everything."""
        own = differing(self.candidate.side.objects, self.stable.side.objects)
        found = by_key(self.candidate.instances(replicas, CANARY, own))
        if self.route is not None:
            found.update(by_key([service_beside(_service(self.candidate), CANARY, CANARY)]))
        return found

    def canary_workload(self) -> tuple[str, str]:
        """Return kind and name of the canary."""
        return "Deployment", slot_name(self.candidate.deployment, CANARY)

    def preview_service(self) -> Objects:
        """Return the Service by which the candidate can be looked at before the switch."""
        return by_key([service_beside(_service(self.candidate), PREVIEW, self.candidate.side.place)])

    def routed(self, objects: Objects, of: ReleaseObjects, weight: int) -> Objects:
        """
        Return the objects with the route sharing out requests.

        :param of: the release whose route it is
        :param weight: percent for the canary
        """
        if self.route is None or not self.canary:
            return objects
        route = find_route(list(objects.values()), self.route, self.live_route)
        beside = slot_name(_service(self.candidate), CANARY)
        return {**objects, **by_key([weighted(route, name_of(_service(of)), beside, weight)])}

    def serving_service(self) -> Objects:
        """Return the Service as it is until the switch."""
        return by_key([service_to(self.stable.service, self.track)]) if self.stable.service else {}

    def bridged(
        self, then: Objects, now: Objects, now_of: ReleaseObjects, then_of: ReleaseObjects
    ) -> Objects:
        """
        Return objects with the Services selecting what is ready, though they are to select something else.

        A Service whose selector changes keeps the old one until then. Where the workload that it selects is
        the same, and its instances are replaced one by one, it selects both old and new ones meanwhile.
        """
        found = dict(then)
        for key in then.keys() & now.keys():
            old, new = selector_of(now[key]), selector_of(then[key])
            if key[1] != "Service" or old == new:
                continue
            both = _selected(old, now_of, now) & _selected(new, then_of, then)
            found[key] = _between(then[key], old, new) if both else now[key]
        return found

    def check(self) -> None:
        """:raises ManifestError: the candidate would get no requests as a canary"""
        service = self.stable.service
        if service is None or not self.by_number:
            return
        if not selects(selector_of(service), pod_labels(self.candidate.deployment)):
            raise ManifestError(
                f"{described(service)} of what runs does not select the pods of the new release, which would "
                "get no requests as a canary; keep the labels, or change them by a rolling release"
            )


def _service(release: ReleaseObjects) -> Object:
    assert release.service is not None, "checked at the beginning"
    return release.service


def _selected(selector: Mapping[str, str], release: ReleaseObjects, objects: Objects) -> set[tuple[str, str]]:
    mine = set(release.workloads)
    return {
        (one["kind"], name_of(one))
        for one in workloads_of(list(objects.values()))
        if (one["kind"], name_of(one)) in mine and selects(selector, pod_labels(one))
    }


def _between(service: Object, old: Mapping[str, str], new: Mapping[str, str]) -> Object:
    both = {name: value for name, value in old.items() if new.get(name) == value}
    if not both:
        raise ManifestError(
            f"{described(service)}: nothing of its selector {dict(old)} is left in {dict(new)}, so that it "
            "could not select the pods of both releases while one replaces the other; rename the workload "
            "as well"
        )
    return {**service, "spec": {**service["spec"], "selector": both}}
