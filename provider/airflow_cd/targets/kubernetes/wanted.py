"""
What a namespace is to hold, as a function of what ran, what is coming, the strategy and how far it is.

Nothing here asks or changes a cluster, and nothing is remembered: whoever comes after a killed process gets
the same answer, and to apply it again does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_cd.exceptions import ManifestError
from airflow_cd.model.kubernetes import KubernetesTargetSettings
from airflow_cd.model.progress import Phase, Progress
from airflow_cd.model.strategy import StrategyChoice
from airflow_cd.targets.kubernetes.change import Objects, Transition
from airflow_cd.targets.kubernetes.objects import PREFIX, is_adopted, is_borrowed
from airflow_cd.targets.kubernetes.phases import aborting, promoting, stepping
from airflow_cd.targets.kubernetes.placed import ReleaseObjects, build_release_objects, check, made_by
from airflow_cd.targets.kubernetes.route import find_route, weighted, without
from airflow_cd.targets.kubernetes.slots import CANARY, STABLE, ReleaseVariant, by_key, place_of, slot_name
from airflow_cd.targets.kubernetes.stages import DesiredState, Wave, chain_waves
from airflow_cd.targets.kubernetes.workload import Object, name_of


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
        somebody else's
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
            f"HTTPRoute {strategy.route!r} came with a release, and the manifests of this one have it no "
            "more: it would be deleted. Put it back, or leave `route:` out; one that somebody else keeps "
            f"from now on must lose the label {PREFIX}service first"
        )


def _is_deployed(live: Object, labels: Mapping[str, str]) -> bool:
    return not is_adopted(live) and labels.items() <= (live["metadata"].get("labels") or {}).items()


def _unshared(objects: Objects, name: str, live: Object | None, service: Object) -> Objects:
    """Return the route without the canary; somebody else's only where there is something to be taken out."""
    try:
        found = find_route(list(objects.values()), name, live)
    except ManifestError:  # somebody removed theirs
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
    # What somebody stored may have been there before.
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
