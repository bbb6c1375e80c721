"""How far the cluster is with a workload, and which pods are those of its newest revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from airflow_cd.targets.kubernetes.cluster import NamespaceClient

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
    # Where somebody has to delete the pods, that is not waited for: as Helm and Argo CD have it.
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
