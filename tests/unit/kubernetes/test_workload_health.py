"""When a workload is as wanted: where kubectl would say so, and never before the cluster took it up."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_cd.kubernetes.workload_health import rollout_status

DEPLOYED = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}
STATEFUL = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3}
DAEMONS = {
    "observedGeneration": 2,
    "desiredNumberScheduled": 3,
    "currentNumberScheduled": 3,
    "updatedNumberScheduled": 3,
    "numberAvailable": 3,
}


def workload(kind: str, status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec = {"replicas": 3, **spec} if kind != "DaemonSet" else spec
    return {"kind": kind, "metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("kind", "good"), [("Deployment", DEPLOYED), ("StatefulSet", STATEFUL), ("DaemonSet", DAEMONS)]
)
def test_it_is_done_only_when_all_is_as_wanted(kind: str, good: dict[str, Any]) -> None:
    assert rollout_status(workload(kind, good)).done
    assert not rollout_status(workload(kind, {})).done
    for name in set(good) - {"replicas", "currentNumberScheduled"}:
        fewer = {**good, name: good[name] - 1}
        if name != "desiredNumberScheduled":
            assert not rollout_status(workload(kind, fewer)).done, name


def test_old_pods_of_a_deployment_are_waited_for() -> None:
    standing = rollout_status(workload("Deployment", {**DEPLOYED, "replicas": 4}))
    assert (standing.done, standing.old) == (False, 1)


def test_no_pods_are_done_when_none_are_wanted() -> None:
    assert rollout_status(workload("Deployment", {"observedGeneration": 2}, replicas=0)).done
    assert not rollout_status(
        workload("Deployment", {"observedGeneration": 2, "replicas": 1}, replicas=0)
    ).done


def test_a_partition_keeps_old_pods() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    one = {**STATEFUL, "updatedReplicas": 1}
    assert rollout_status(workload("StatefulSet", one, updateStrategy=strategy)).done
    none = {**STATEFUL, "updatedReplicas": 0}
    assert not rollout_status(workload("StatefulSet", none, updateStrategy=strategy)).done


@pytest.mark.parametrize(("kind", "good"), [("StatefulSet", STATEFUL), ("DaemonSet", DAEMONS)])
def test_pods_that_somebody_has_to_delete_are_not_waited_for(kind: str, good: dict[str, Any]) -> None:
    none = {**good, "updatedReplicas": 0, "updatedNumberScheduled": 0}
    assert not rollout_status(workload(kind, none)).done
    assert rollout_status(workload(kind, none, updateStrategy={"type": "OnDelete"})).done


def test_pods_that_are_ready_and_not_yet_available_do_not_count() -> None:
    assert not rollout_status(workload("StatefulSet", {**STATEFUL, "availableReplicas": 2})).done
