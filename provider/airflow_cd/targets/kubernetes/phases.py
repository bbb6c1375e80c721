"""What a namespace is to hold in each phase of a change from one release to another."""

from __future__ import annotations

from airflow_cd.targets.kubernetes.change import Objects, Transition
from airflow_cd.targets.kubernetes.shares import replicas_for_weight
from airflow_cd.targets.kubernetes.slots import by_key, key_of
from airflow_cd.targets.kubernetes.stages import DesiredState, Wave, chain_waves
from airflow_cd.targets.kubernetes.workload import WORKLOADS, Object, runs


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
    # Not known: whether, by what it was told, there has been something of it all the time.
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
