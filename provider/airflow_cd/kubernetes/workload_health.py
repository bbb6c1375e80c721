"""Reads how far a workload is, and what its pods, events and logs say when it is not ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from airflow_cd.exceptions import TargetError
from airflow_cd.kubernetes.diagnosis import Problem, diagnose, lines_told, seconds_since, told
from airflow_cd.model.base import Frozen

if TYPE_CHECKING:
    from airflow_cd.kubernetes.client import NamespaceClient

_REVISION = "deployment.kubernetes.io/revision"
_DEPLOYMENT_HASH = "pod-template-hash"
_CONTROLLER_HASH = "controller-revision-hash"


class RolloutStatus(NamedTuple):
    """
    What a workload says about itself.

    :param observed: the cluster has taken up its newest definition; nothing else counts before that
    :param done: it is as wanted, by the rules of ``kubectl rollout status``
    :param wanted: how many pods it is to have
    :param updated: how many pods of the newest revision it has
    :param ready: how many pods are ready, of whatever revision
    :param old: how many pods of older revisions it has
    """

    observed: bool
    done: bool
    wanted: int
    updated: int
    ready: int
    old: int


def rollout_status(workload: Mapping[str, Any]) -> RolloutStatus:
    """Return how far a Deployment, StatefulSet or DaemonSet is."""
    kind = workload["kind"]
    return {"Deployment": _deployment, "StatefulSet": _stateful_set, "DaemonSet": _daemon_set}[kind](workload)


def _deployment(workload: Mapping[str, Any]) -> RolloutStatus:
    status = workload.get("status") or {}
    wanted, updated = _wanted(workload), status.get("updatedReplicas", 0)
    available, old = status.get("availableReplicas", 0), status.get("replicas", 0) - updated
    observed = _observed(workload)
    # What is scaled down may go on serving until its last instances are gone.
    gone = wanted > 0 or status.get("replicas", 0) == 0
    done = observed and updated >= wanted and old <= 0 and available >= updated and gone
    return RolloutStatus(observed, done, wanted, updated, available, max(old, 0))


def _stateful_set(workload: Mapping[str, Any]) -> RolloutStatus:
    spec, status = workload["spec"], workload.get("status") or {}
    strategy = spec.get("updateStrategy") or {}
    wanted, updated = _wanted(workload), status.get("updatedReplicas", 0)
    # Servers before 1.22 know no other than this.
    ready = min(status.get("readyReplicas", 0), status.get("availableReplicas", wanted))
    kept = (strategy.get("rollingUpdate") or {}).get("partition", 0)
    observed = _observed(workload)
    # Where a person has to delete the pods, that is not waited for: as Helm and Argo CD have it.
    renewed = strategy.get("type") == "OnDelete" or updated >= wanted - kept
    old = max(status.get("replicas", 0) - updated, 0)
    return RolloutStatus(observed, observed and renewed and ready >= wanted, wanted, updated, ready, old)


def _daemon_set(workload: Mapping[str, Any]) -> RolloutStatus:
    spec, status = workload["spec"], workload.get("status") or {}
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    available = status.get("numberAvailable", 0)
    observed = _observed(workload)
    renewed = (spec.get("updateStrategy") or {}).get("type") == "OnDelete" or updated >= wanted
    old = max(status.get("currentNumberScheduled", 0) - updated, 0)
    return RolloutStatus(
        observed, observed and renewed and available >= wanted, wanted, updated, available, old
    )


def _wanted(workload: Mapping[str, Any]) -> int:
    wanted = workload["spec"].get("replicas")
    return 1 if wanted is None else int(wanted)


def _observed(workload: Mapping[str, Any]) -> bool:
    seen = (workload.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= workload["metadata"].get("generation", 1))


def newest_pods(
    cluster: NamespaceClient, workload: Mapping[str, Any], standing: RolloutStatus
) -> list[dict[str, Any]]:
    """
    Return the pods of the newest revision that are not on their way out.

    Never another workload's, whatever labels they share: a canary's pods have those of the stable ones.
    """
    if standing.updated == 0:
        return []
    # All of the newest have all of the template's labels; older ones and others' may have them, too.
    labels = workload["spec"]["template"]["metadata"]["labels"]
    pods = [
        pod
        for pod in cluster.list("v1", "Pod", labels)
        if not pod["metadata"].get("deletionTimestamp") and _owned(pod, workload)
    ]
    if not standing.old:
        return pods
    newest = _newest_hash(cluster, workload, labels)
    return [pod for pod in pods if _hash(pod, workload["kind"]) == newest]


def _owned(pod: Mapping[str, Any], workload: Mapping[str, Any]) -> bool:
    owner = _owner(pod)
    if workload["kind"] != "Deployment":
        return bool(owner.get("uid") == workload["metadata"]["uid"])
    # The name of a ReplicaSet is its Deployment's and the hash, in which there is no dash.
    name = f"{workload['metadata']['name']}-{_hash(pod, 'Deployment')}"
    return owner.get("kind") == "ReplicaSet" and owner.get("name") == name


def _owner(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    owners: Sequence[Mapping[str, Any]] = thing["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def _hash(thing: Mapping[str, Any], kind: str) -> str | None:
    label = _DEPLOYMENT_HASH if kind == "Deployment" else _CONTROLLER_HASH
    return (thing["metadata"].get("labels") or {}).get(label)


def _newest_hash(
    cluster: NamespaceClient, workload: Mapping[str, Any], labels: Mapping[str, str]
) -> str | None:
    kind, uid = workload["kind"], workload["metadata"]["uid"]
    if kind == "StatefulSet":
        # Its name is the value of the label.
        return (workload.get("status") or {}).get("updateRevision")
    revisions = "ReplicaSet" if kind == "Deployment" else "ControllerRevision"
    owned = [one for one in cluster.list("apps/v1", revisions, labels) if _owner(one).get("uid") == uid]
    return _hash(max(owned, key=_revision), kind) if owned else None


def _revision(thing: Mapping[str, Any]) -> int:
    """Return the number of a revision; one that is gone back to gets a new one."""
    number = thing.get("revision") or (thing["metadata"].get("annotations") or {}).get(_REVISION)
    return int(number or 0)


_REMOVED = "unable to retrieve container logs for "
# A log may have lines of any length.
_MOST_BYTES = 256 * 1024
# Its node might not answer; the rollout must not wait for that.
_CONNECT_SECONDS, _READ_SECONDS = 5, 10


class LogRemovedError(TargetError):
    """Raised when a container's log went with the container."""


def events_of(cluster: NamespaceClient, uid: str) -> list[dict[str, Any]]:
    """
    Return the events about the object of this uid.

    :raises TargetError: they cannot be read
    """
    path = f"/api/v1/namespaces/{cluster.namespace}/events"
    with cluster.reported("events"):
        found = cluster.request("GET", path, query={"fieldSelector": f"involvedObject.uid={uid}"})
    return list(found["items"])


def last_lines(cluster: NamespaceClient, pod: str, container: str, *, previous: bool, lines: int) -> str:
    """
    Return what a container wrote last.

    :param previous: the container before the one that is there now, after it was restarted
    :raises LogRemovedError: the container was removed
    :raises TargetError: it cannot be read
    """
    query = {
        "container": container,
        "previous": str(previous).lower(),
        "tailLines": str(lines),
        "limitBytes": str(_MOST_BYTES),
    }
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/log?{urlencode(query)}"
    with cluster.reported(f"log of pod {pod}"):
        # By itself the client takes a line that is JSON for an answer of the API; and it asks again and again
        # where there is no log to be had, but not when it is asked like this.
        asked = cluster.client.call_api(
            path,
            "GET",
            header_params={"Accept": "text/plain, */*"},
            auth_settings=["BearerToken"],
            async_req=True,
            _preload_content=False,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
        )
        response = asked.get()
        try:
            text = bytes(response.data).decode(errors="replace")
        finally:
            response.release_conn()
    # The kubelet says so in the place of the log, as a success.
    if text.startswith(_REMOVED):
        raise LogRemovedError(f"log of pod {pod}: its container {container} was removed")
    return text


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
    except TargetError:  # such as one who cannot read them
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
