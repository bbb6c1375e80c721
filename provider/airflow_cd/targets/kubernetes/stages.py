"""What a namespace is to hold, in stages: each may be applied once what the one before waits for is ready."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_cd.targets.kubernetes.placed import Workload
from airflow_cd.targets.kubernetes.slots import Key
from airflow_cd.targets.kubernetes.workload import WORKLOADS, Object, name_of

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
        are applied; whatever has no label ``airflow-cd/track`` is somebody else's
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
