"""The desired state of a namespace in each phase of a rollout, as waves applied in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_cd.exceptions import ManifestError
from airflow_cd.kubernetes.objects import PREFIX, WORKLOADS, Object, is_adopted, is_borrowed, name_of, runs
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.rollout import Phase, Progress
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.traffic import find_route, weighted, without
from airflow_cd.targets.kubernetes.transition import Objects, Transition, replicas_for_weight
from airflow_cd.targets.kubernetes.variants import (
    CANARY,
    STABLE,
    Key,
    ReleaseObjects,
    ReleaseVariant,
    Workload,
    build_release_objects,
    by_key,
    check,
    key_of,
    made_by,
    slot_name,
)

# Requests are taken away from what is about to go, before it goes: nothing ever starts to get requests in
# the same stage in which it is made. What scales a workload comes after it.
_ROUTES = ("Ingress", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute")
_LATER = (("Service",), _ROUTES, WORKLOADS, ("HorizontalPodAutoscaler",), ("Job", "CronJob", "Pod"))


@dataclass(frozen=True)
class DesiredState:
    """
    What a namespace is to hold.

    :param objects: in the order in which they are to be applied
    :param candidate: kind and name of the workloads that have to be ready for the phase to be done, when the
        last stage is applied
    :param stable: those that have to be ready for what ran before to have everything back
    :param delete: ``apiVersion``, kind and name of what rollouts made and that is to go, once the objects
        are applied; whatever has no label ``airflow-cd/track`` is another owner's
    :param gate: those that have to be as in ``objects``, and ready, before ``then`` may be applied
    :param then: the next stage; what it does to the workloads of the gate does not undo that they are ready
    """

    objects: list[Object]
    candidate: list[Workload] = field(default_factory=list)
    stable: list[Workload] = field(default_factory=list)
    delete: list[tuple[str, str, str]] = field(default_factory=list)
    gate: list[Workload] = field(default_factory=list)
    then: DesiredState | None = None

    @property
    def stages(self) -> Iterator[DesiredState]:
        """Go through all stages."""
        stage: DesiredState | None = self
        while stage is not None:
            yield stage
            stage = stage.then

    @property
    def last(self) -> DesiredState:
        """Return the last stage."""
        return list(self.stages)[-1]

    def gates(self) -> list[Object]:
        """Return the objects that the next stage waits for."""
        wanted = set(self.gate)
        return [
            one for one in self.objects if one["kind"] in WORKLOADS and (one["kind"], name_of(one)) in wanted
        ]

    def reached(self, is_ready: Callable[[Object], bool]) -> DesiredState:
        """
        Return the stage to be applied now.

        Nobody has to remember which one was: a gate that was passed stays passed.

        :param is_ready: whether the cluster has a workload exactly like this one, and it is ready
        """
        stage = self
        while stage.then is not None and all(is_ready(one) for one in stage.gates()):
            stage = stage.then
        return stage


class Wave(NamedTuple):
    """One stage while it is put together."""

    objects: Mapping[Key, Object]
    gate: Sequence[Workload] = ()


def chain_waves(
    stages: Sequence[Wave],
    *,
    candidate: Collection[Workload] = (),
    stable: Collection[Workload] = (),
    delete: Sequence[tuple[str, str, str]] = (),
) -> DesiredState:
    """Return stages one after the other, without those that are like the next one."""
    then: DesiredState | None = None
    for stage in reversed(stages):
        objects = ordered(stage.objects)
        if then is not None and objects == then.objects:
            continue
        then = DesiredState(
            objects,
            list(dict.fromkeys(candidate)),
            list(dict.fromkeys(stable)),
            list(delete) if then is None else [],
            list(dict.fromkeys(stage.gate)) if then is not None else [],
            then,
        )
    assert then is not None, "there is at least one stage"
    return then


def ordered(objects: Mapping[Key, Object]) -> list[Object]:
    """Return objects in the order in which they are to be applied."""
    return sorted(objects.values(), key=lambda one: _rank(one["kind"]))


def _rank(kind: str) -> int:
    return next((number for number, kinds in enumerate(_LATER, 1) if kind in kinds), 0)


def stepping(change: Transition) -> DesiredState:
    """Return what is to be there while the candidate gets its share step by step."""
    beside = _beside(change)
    if change.preview:
        objects = {**beside, **by_key(change.candidate.instances(None)), **change.preview_service()}
        return _stepped(change, [Wave(objects)])
    if change.route is not None:
        return _stepped(change, _by_route(change, beside))
    return _stepped(change, _by_number(change, beside))


def promoting(change: Transition) -> DesiredState:
    """Return what is to be there while the candidate is being given everything."""
    candidate, stable = change.candidate, change.stable
    switched = not change.in_place and candidate.service is not None
    track = candidate.side.place if change.track is not None or (change.canary and switched) else None
    final = {**candidate.all(track, replicas=_size(change)), **_kept(change)}
    serving = {**stable.all(change.track), **change.serving_service()}
    first = change.bridged(final, serving, stable, candidate)
    if not change.in_place:
        first = {**change.serving_service(), **first}
        final = {**change.serving_service(), **final}
    weight = change.weights[1]
    stages = [
        Wave(change.routed(first, candidate, weight), candidate.workloads),
        Wave(change.routed(final, candidate, 0)),
    ]
    return chain_waves(stages, candidate=candidate.workloads, stable=stable.workloads)


def aborting(change: Transition) -> DesiredState:
    """Return what is to be there while everything is being given back to what ran before."""
    stable = change.stable
    place = stable.side.place
    tight = change.canary or change.preview or not change.in_place
    full = stable.all(place if tight else None, replicas=_stable_size(change))
    gone = _gone(change)
    extra = [key[1:] for key in gone if key[1] in WORKLOADS]
    last = Wave(change.routed({**full, **gone}, stable, 0))
    if change.canary:
        stages = _canary_aborted(change, full, last)
    elif change.in_place and change.promoting:
        first = change.bridged(full, change.candidate.all(change.track), change.candidate, stable)
        stages = [Wave(first, stable.workloads), last]
    else:
        stages = [last]
    return chain_waves(stages, candidate=[], stable=[*stable.workloads, *extra])


def _beside(change: Transition) -> Objects:
    """
    Return what the stable release consists of, untouched, and what only the candidate has.

    Its instances may need that. What runs its image, though, is the candidate itself, and waits.
    """
    side = change.candidate.side
    mine = (change.candidate.workload, change.candidate.service)
    new = [one for one in side.objects if all(one is not of for of in mine) and not runs(one, side.digest)]
    serving = {**change.stable.all(change.track), **change.serving_service()}
    theirs = {key_of(one) for one in change.stable.side.objects}
    return {**{key: one for key, one in by_key(new).items() if key not in theirs}, **serving}


def _stepped(change: Transition, stages: list[Wave]) -> DesiredState:
    slot = change.canary_workload() if change.canary else change.candidate.slot
    assert slot is not None
    return chain_waves(stages, candidate=[slot], stable=change.stable.workloads)


def _by_number(change: Transition, beside: Objects) -> list[Wave]:
    """Let first grow what grows, and then shrink what shrinks: nothing that serves is missed."""
    before, after = change.shares
    stable, canary = change.stable.slot, change.canary_workload()
    assert stable is not None

    def shared(instances: int, canaries: int) -> Objects:
        return {
            **beside,
            **by_key(change.stable.instances(instances)),
            **change.canary_slot(canaries),
        }

    stages = []
    if change.occupied:
        # What is left of an older candidate serves until the stable release can do so alone.
        stages.append(Wave({**beside, **by_key(change.stable.instances(change.stable.size))}, [stable]))
    if after.canary >= before.canary:
        stages.append(Wave(shared(before.stable, after.canary), [canary]))
    else:
        stages.append(Wave(shared(after.stable, before.canary), [stable]))
    return [*stages, Wave(shared(after.stable, after.canary))]


def _by_route(change: Transition, beside: Objects) -> list[Wave]:
    """Let more requests go to the candidate when it is ready for them, and fewer at once."""
    before, after = change.weights
    objects = {**beside, **change.canary_slot(replicas_for_weight(change.candidate.size, after))}
    first = change.routed(objects, change.stable, min(before, after))
    return [Wave(first, [change.canary_workload()]), Wave(change.routed(objects, change.stable, after))]


def _kept(change: Transition) -> Objects:
    """Return what goes on serving beside the candidate until it has everything."""
    kept: Objects = {}
    _, after = change.shares
    if not change.in_place and change.stable.workload is not None:
        kept.update(by_key(_stable_instances(change, after.stable if change.by_number else None)))
    if change.canary:
        kept.update(change.canary_slot(_canaries(change)))
    if change.preview:
        kept.update(change.preview_service())
    return kept


def _gone(change: Transition) -> Objects:
    """Return what the candidate ran in, without instances."""
    if change.canary:
        gone = change.canary_slot(0)
        promoted = not change.in_place and change.promoting
        return {**by_key(change.candidate.instances(0)), **gone} if promoted else gone
    if (
        change.in_place
        or change.candidate.workload is None
        or change.candidate.workload["kind"] != "Deployment"
    ):
        return {}
    return by_key(change.candidate.instances(0))


def _canary_aborted(change: Transition, full: Objects, last: Wave) -> list[Wave]:
    """
    Give the requests back: at once, where there is anything ready to take them, and else when there is.

    The canary goes when nobody sends it requests any more.
    """
    stable = change.stable.slot
    assert stable is not None
    still = change.canary_slot(_canaries(change))
    if change.route is not None:
        weight = 0 if change.serving is None or change.serving > 0 else max(change.weights)
        return [Wave(change.routed({**full, **still}, change.stable, weight), [stable]), last]
    if _at_once(change):
        return [last]
    return [Wave({**full, **still, **change.serving_service()}, [stable]), last]


def _at_once(change: Transition) -> bool:
    if change.serving is not None and change.promoting:
        # Some of them may be the candidate's, and are about to be replaced: as many of a Deployment's
        # instances as there are while it replaces them can take everything, by its own default.
        return change.serving >= replicas_for_weight(change.stable.size, 75) > 0
    if change.serving is not None:
        return change.serving > 0
    # Not known: whether there has been something of it all the time.
    return not change.promoting and all(share.stable > 0 or not change.stable.size for share in change.shares)


def _canaries(change: Transition) -> int:
    """Return how many instances of a canary may be serving."""
    if change.route is not None:
        return replicas_for_weight(change.candidate.size, max(change.weights))
    return max(share.canary for share in change.shares)


def _size(change: Transition) -> int | None:
    """Return the instances of a candidate that gets everything, ``None`` where their number is left alone."""
    return change.candidate.size if change.by_number or not change.in_place else None


def _stable_size(change: Transition) -> int | None:
    return change.stable.size if change.by_number else None


def _stable_instances(change: Transition, replicas: int | None) -> list[Object]:
    if change.stable.deployment["kind"] != "Deployment":
        return []  # it is in nobody's slots; what is not mentioned stays as it is
    return change.stable.instances(replicas)


def desired_state(
    settings: KubernetesTargetSettings,
    strategy: StrategyChoice | None,
    progress: Progress,
    candidate: ReleaseVariant,
    stable: ReleaseVariant | None,
    *,
    fast: bool,
    replicas: int | None = None,
    occupied: bool = False,
    serving: int | None = None,
    route: Object | None = None,
) -> DesiredState:
    """
    Return what is to be there while a release takes over, in the phase and with the share of its progress.

    :param strategy: of the candidate
    :param stable: what runs; ``None`` when nothing does
    :param fast: whether the strategy's steps are left out, as for the first release and for a rollback
    :param replicas: how many instances the stable workload had when this began, where the manifests do not
        say. Not how many it has now: the strategy itself changes that.
    :param occupied: whether the canary's slot still runs another release than the candidate
    :param serving: how many instances of the stable workload are ready now; ``None`` when that is not known
    :param route: the live HTTPRoute that the strategy names; where it is not in the manifests, it is
        another owner's
    :raises ManifestError: the objects are not what the strategy can work with
    """
    steps = None if fast else strategy

    def change_from(before: ReleaseVariant) -> Transition:
        coming = build_release_objects(settings, strategy, candidate, replicas)
        running = build_release_objects(settings, steps, before, replicas)
        return Transition(settings, strategy, progress, coming, running, fast, occupied, serving, route)

    if progress.phase in (Phase.ABORTING, Phase.ABORTED):
        if stable is None:
            return _removed(candidate)
        try:
            return aborting(change_from(stable))
        except ManifestError:  # of the candidate, which therefore has not got far; what ran has to serve
            return _restored(build_release_objects(settings, None, stable, replicas))
    if strategy is not None:
        check(strategy, build_release_objects(settings, strategy, candidate, replicas))
    if stable is None:
        return _alone(build_release_objects(settings, strategy, candidate, replicas))
    change = change_from(stable)
    change.check()
    if steps is None or progress.phase in (Phase.PROMOTING, Phase.PROMOTED):
        return promoting(change)
    return stepping(change)


def steady_state(
    settings: KubernetesTargetSettings,
    strategy: StrategyChoice | None,
    current: ReleaseVariant,
    previous: ReleaseVariant | None,
    *,
    scaled_down: bool,
    replicas: int | None = None,
    route: Object | None = None,
) -> DesiredState:
    """
    Return what is to be there when nothing is on its way.

    :param strategy: that the current release was brought by
    :param previous: what ran before, if it can be gone back to
    :param scaled_down: whether blue/green's old colour has been given up
    :param replicas: as for :func:`wanted`, for the colours of blue/green
    :param route: as for :func:`wanted`
    :raises ManifestError: the objects are not what the strategy can work with
    """
    now = build_release_objects(settings, strategy, current, replicas)
    old = _old_colour(settings, strategy, now, previous, replicas)
    kept = by_key(old.instances(0 if scaled_down else None)) if old is not None else {}
    place = current.place
    track = place if place != STABLE or old is not None else None
    objects = {**kept, **now.all(track)}
    if strategy is not None and strategy.route is not None and now.service is not None:
        objects.update(_unshared(objects, strategy.route, route, now.service))
    delete = [(_API[key[1]], *key[1:]) for key in made_by(now) if key not in objects]
    return chain_waves([Wave(objects)], candidate=now.workloads, delete=delete)


def check_route(
    settings: KubernetesTargetSettings,
    strategy: StrategyChoice | None,
    candidate: ReleaseVariant,
    route: Object | None,
    labels: Mapping[str, str],
) -> None:
    """
    Make sure that requests can be shared out between the candidate and what comes after it.

    :param route: as for :func:`wanted`
    :param labels: what tells objects of this service and environment
    :raises ManifestError: there is no such HTTPRoute, it does not refer to the Service, or it is about to be
        deleted since it is in the manifests no more
    """
    service = build_release_objects(settings, strategy, candidate).service
    if strategy is None or strategy.route is None or service is None:
        return
    found = find_route(candidate.objects, strategy.route, route)
    weighted(found, name_of(service), slot_name(service, CANARY), 0)
    if is_borrowed(found) and route is not None and _is_deployed(route, labels):
        raise ManifestError(
            f"HTTPRoute {strategy.route!r} came with a release, and the manifests of this release do not "
            "have it: it would be deleted. Add it again, or remove `route:`; if another owner keeps the "
            f"route from now on, remove its label {PREFIX}service first"
        )


def _is_deployed(live: Object, labels: Mapping[str, str]) -> bool:
    return not is_adopted(live) and labels.items() <= (live["metadata"].get("labels") or {}).items()


def _unshared(objects: Objects, name: str, live: Object | None, service: Object) -> Objects:
    """Return the route without the canary; another owner's only where there is something to be taken out."""
    try:
        found = find_route(list(objects.values()), name, live)
    except ManifestError:  # its owner removed it
        return {}
    alone = without(found, name_of(service), slot_name(service, CANARY))
    return {} if is_borrowed(found) and alone == found else by_key([alone])


_API = {"Service": "v1", "ConfigMap": "v1", "Deployment": "apps/v1"}


def _alone(coming: ReleaseObjects) -> DesiredState:
    """Return what is to be there when nothing ran before: there are no requests to be shared out."""
    place = coming.side.place
    track = place if place != STABLE else None
    stages = [Wave(coming.all(None), coming.workloads), Wave(coming.all(track))]
    return chain_waves(stages, candidate=coming.workloads)


def _removed(candidate: ReleaseVariant) -> DesiredState:
    """Return that the first release of all is to go, whatever slot it is in."""
    delete = [(one["apiVersion"], one["kind"], name_of(one)) for one in candidate.objects]
    delete += [
        (one["apiVersion"], one["kind"], f"{name_of(one)}-{candidate.place}")
        for one in candidate.objects
        if one["kind"] in ("Deployment", "ConfigMap") and candidate.place != STABLE
    ]
    # A claim may have existed before.
    return DesiredState([], delete=[one for one in reversed(delete) if one[1] != "PersistentVolumeClaim"])


def _restored(stable: ReleaseObjects) -> DesiredState:
    """Return what ran before, with all requests, when nothing can be said of what was coming."""
    objects = stable.all(stable.side.place, replicas=stable.size if stable.workload else None)
    return chain_waves([Wave(objects)], stable=stable.workloads)


def _old_colour(
    settings: KubernetesTargetSettings,
    strategy: StrategyChoice | None,
    now: ReleaseObjects,
    previous: ReleaseVariant | None,
    replicas: int | None,
) -> ReleaseObjects | None:
    if strategy is None or strategy.blue_green is None or previous is None:
        return None
    old = build_release_objects(settings, strategy, previous, replicas)
    return None if old.slot == now.slot else old
