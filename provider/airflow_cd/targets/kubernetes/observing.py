"""Looks at what a rollout has done on the cluster so far, with as few requests as that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import TargetError
from airflow_cd.model.base import Frozen
from airflow_cd.model.diagnosis import diagnose
from airflow_cd.model.problem import Problem, lines_told, seconds_since, told
from airflow_cd.targets.kubernetes.evidence import LogRemovedError, events_of, last_lines
from airflow_cd.targets.kubernetes.standing import RolloutStatus, newest_pods, rollout_status

if TYPE_CHECKING:
    from airflow_cd.targets.kubernetes.cluster import NamespaceClient

_LOG_LINES = 20
# Two pods of the same template have the same problem, or one that tells of the other.
_LOOKED_AT = 2
# One that says nothing and is not ready for that long may have events that say why.
_SILENT_SECONDS = 10


class WorkloadHealth(Frozen):
    """
    What was seen of some workloads.

    :param ready: all of them are as wanted, by the rules of ``kubectl rollout status``
    :param count: how far they are, for people; that it changes is progress
    :param ready_pods: by workload, how many pods of its newest revision are ready
    :param broken: why one of them will certainly not become ready
    :param problems: what keeps them from it, also what may pass
    """

    ready: bool
    count: str = ""
    ready_pods: dict[str, int] = {}
    broken: str | None = None
    problems: tuple[Problem, ...] = ()


class _Sight(NamedTuple):
    ready: bool
    text: str
    ready_pods: int = 0
    problems: Sequence[Problem] = ()


def read_workload_health(cluster: NamespaceClient, workloads: Sequence[tuple[str, str]]) -> WorkloadHealth:
    """
    Look at workloads.

    One that is as wanted costs one request; one that is not, two or three; and one that something is wrong
    with up to three more.

    :param workloads: kind (``Deployment``, ``StatefulSet`` or ``DaemonSet``) and name of each
    :raises TargetError: the cluster cannot be asked
    """
    found = [(name, _look(cluster, kind, name)) for kind, name in workloads]
    problems = tuple(problem for _, sight in found for problem in sight.problems)
    ready_pods: dict[str, int] = {}
    for name, sight in found:
        # Those of different kinds may have the same name.
        ready_pods[name] = ready_pods.get(name, 0) + sight.ready_pods
    return WorkloadHealth(
        ready=all(sight.ready for _, sight in found),
        count="; ".join(sight.text for _, sight in found),
        ready_pods=ready_pods,
        broken=next((problem.text for problem in problems if problem.certain), None),
        problems=problems,
    )


def _look(cluster: NamespaceClient, kind: str, name: str) -> _Sight:
    workload = cluster.get("apps/v1", kind, name)
    if workload is None:
        return _Sight(False, f"{name}: not there")
    # Lists and some servers leave it out.
    workload.setdefault("kind", kind)
    standing = rollout_status(workload)
    if not standing.observed:
        problems = _problems(cluster, workload, []) if kind == "StatefulSet" else []
        return _Sight(False, f"{name}: not taken up by the cluster yet", 0, problems)
    if standing.done:
        return _Sight(True, f"{name}: {standing.ready} of {standing.wanted} ready", standing.ready)
    pods = newest_pods(cluster, workload, standing)
    ready = sum(_is_ready(pod) for pod in pods)
    return _Sight(False, _count(name, standing, ready), ready, _problems(cluster, workload, pods))


def _count(name: str, standing: RolloutStatus, ready: int) -> str:
    count = f"{name}: {ready} of {standing.wanted} ready, {standing.updated} updated"
    return f"{count}, {standing.old} old" if standing.old else count


def _problems(
    cluster: NamespaceClient, workload: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]
) -> list[Problem]:
    now = datetime.now(timezone.utc)
    found = diagnose(workload, pods, [], now)
    troubled = {problem.pod for problem in found}
    doubtful = [pod for pod in pods if pod["metadata"]["name"] in troubled or _silent(pod, now)]
    if not pods and workload["kind"] != "Deployment":
        # Only a Deployment says by itself why it has no pods.
        doubtful = [workload]
    events = [event for thing in doubtful[:_LOOKED_AT] for event in _events(cluster, thing)]
    if events:
        found = diagnose(workload, pods, events, now)
    return [
        _with_log(cluster, problem, pods) if number == 0 else problem for number, problem in enumerate(found)
    ]


def _events(cluster: NamespaceClient, thing: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return events_of(cluster, thing["metadata"]["uid"])
    except TargetError:  # such as one who may not read them
        return []


def _with_log(cluster: NamespaceClient, problem: Problem, pods: Sequence[Mapping[str, Any]]) -> Problem:
    if problem.category != "crash" or problem.pod is None or problem.container is None:
        return problem
    pod = next(pod for pod in pods if pod["metadata"]["name"] == problem.pod)
    status = next(one for one in _statuses(pod) if one["name"] == problem.container)
    # A container that just ended is not the previous one yet; a moment later it is.
    previous = not (status.get("state") or {}).get("terminated")
    try:
        said = _last_said(cluster, problem.pod, problem.container, previous=previous)
    except TargetError as error:  # both were removed meanwhile, or their node does not answer
        said = problem.detail or f"its log cannot be read: {told(error)}"
    return problem.model_copy(update={"detail": lines_told(said) or problem.detail})


def _last_said(cluster: NamespaceClient, pod: str, container: str, *, previous: bool) -> str:
    read = partial(last_lines, cluster, pod, container, lines=_LOG_LINES)
    try:
        return read(previous=previous)
    except LogRemovedError:  # the one that came after it has the same to say
        return read(previous=not previous)


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    status = pod["status"]
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _silent(pod: Mapping[str, Any], now: datetime) -> bool:
    return (
        not _is_ready(pod) and seconds_since(pod["metadata"].get("creationTimestamp"), now) > _SILENT_SECONDS
    )


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
