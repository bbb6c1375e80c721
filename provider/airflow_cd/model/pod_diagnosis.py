"""What is wrong with a pod of Kubernetes that is not ready."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_cd.model.container_diagnosis import Container, container_problem
from airflow_cd.model.problem import (
    Category,
    Event,
    Problem,
    first_seen,
    last_seen,
    newest,
    seconds_since,
    times_seen,
    told,
    told_of,
)

_BEING_MADE = ("ContainerCreating", "PodInitializing")
# A cluster that can grow looks for such pods every 10 s, and then says that it grows (Cluster Autoscaler,
# ``--scan-interval``). One that said nothing after a minute does not.
_UNSCHEDULABLE_SECONDS = 60
# ... and after that long gives up a node that did not come (``--max-node-provision-time``).
_GROWING_SECONDS = 900
# Of the Cluster Autoscaler, and of Karpenter.
_GROWING = ("TriggeredScaleUp", "Nominated")
_MISSING = re.compile(r"(configmap|secret) \"?\S+\"? not found|references non-existent (config|secret) key")
_NO_CLAIM = re.compile(r"persistentvolumeclaim \"?\S+\"? not found")
# As for containers: the second sight, after a moment.
_MOUNTS, _MOUNT_SECONDS = 2, 10


def pod_problems(pod: Mapping[str, Any], events: Sequence[Event], now: datetime) -> list[Problem]:
    """
    Return what is wrong with a pod; nothing of one that is ready, or is on its way out.

    :param events: of anything
    """
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp") or _ready(status):
        return []
    events = told_of(events, pod)
    if status.get("phase") == "Failed":
        return [_failed(pod, status)]
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    found = [container_problem(Container(pod, one, events, now)) for one in statuses]
    problems = [one for one in found if one is not None]
    others = (_unschedulable(pod, status, events, now), _unmade(pod, statuses, events, now))
    problems += [one for one in others if one is not None]
    return problems or _unready(pod, status, events)


def _ready(status: Mapping[str, Any]) -> bool:
    return (_status_condition(status, "Ready") or {}).get("status") == "True"


def _status_condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    return next((one for one in status.get("conditions") or [] if one.get("type") == kind), None)


def _problem(
    pod: Mapping[str, Any], category: Category, summary: str, remedy: str, detail: object, certain: bool
) -> Problem:
    name = pod["metadata"]["name"]
    return Problem(
        category=category,
        summary=f"Pod {name} {summary}",
        remedy=remedy,
        detail=told(detail),
        certain=certain,
        pod=name,
    )


def _failed(pod: Mapping[str, Any], status: Mapping[str, Any]) -> Problem:
    # Another one takes its place; what will become of that one is not known.
    summary = f"was given up ({status.get('reason') or 'Failed'})"
    remedy = "Look whether its node lacks memory or disk space"
    return _problem(pod, "node", summary, remedy, status.get("message"), False)


def _unschedulable(
    pod: Mapping[str, Any], status: Mapping[str, Any], events: Sequence[Event], now: datetime
) -> Problem | None:
    condition = _status_condition(status, "PodScheduled") or {}
    if condition.get("status") != "False":
        return None
    why = str(condition.get("message") or "")
    growing = newest(events, _GROWING)
    coming = growing is not None and seconds_since(last_seen(growing), now) < _GROWING_SECONDS
    waited = seconds_since(condition.get("lastTransitionTime"), now) > _UNSCHEDULABLE_SECONDS
    # Others are on their way out to make room for it.
    certain = waited and not coming and not status.get("nominatedNodeName")
    if "persistentvolumeclaim" in why.lower():
        # A volume that is to be made may take longer.
        remedy = "Add the claim to the manifests, or see why it has no volume yet"
        certain = certain and bool(_NO_CLAIM.search(why))
        return _problem(pod, "volume", "waits for its volume", remedy, why, certain)
    remedy = (
        "Ask for less, remove what keeps it from the nodes (nodeSelector, affinity, taints), or add nodes"
    )
    return _problem(pod, "unschedulable", "fits on no node", remedy, why, certain)


def _unmade(
    pod: Mapping[str, Any], statuses: Sequence[Mapping[str, Any]], events: Sequence[Event], now: datetime
) -> Problem | None:
    reasons = [((one.get("state") or {}).get("waiting") or {}).get("reason") for one in statuses]
    if not reasons or not all(reason in _BEING_MADE for reason in reasons):
        return None
    mounts = [one for one in events if one.get("reason") in ("FailedMount", "FailedAttachVolume")]
    missing = next((one for one in mounts if _MISSING.search(str(one.get("message")))), None)
    if missing is not None:
        again = times_seen(missing) >= _MOUNTS and seconds_since(first_seen(missing), now) > _MOUNT_SECONDS
        remedy = "Correct the manifests, or add what they refer to"
        summary = "cannot be made as it is configured"
        return _problem(pod, "configuration", summary, remedy, missing["message"], again)
    if mounts:
        remedy = "See whether the volume is used on another node, and what its driver says"
        return _problem(pod, "volume", "waits for its volume", remedy, mounts[0]["message"], False)
    if sandbox := newest(events, ["FailedCreatePodSandBox"]):
        remedy = "See whether the node's network and its container runtime work"
        return _problem(pod, "node", "cannot be made on its node", remedy, sandbox["message"], False)
    return None


def _unready(pod: Mapping[str, Any], status: Mapping[str, Any], events: Sequence[Event]) -> list[Problem]:
    probe = newest(events, ["Unhealthy"], "Readiness probe") or newest(events, ["Unhealthy"], "Startup probe")
    condition = _status_condition(status, "Ready") or {}
    if probe is not None:
        summary, why = "runs and is not ready", probe["message"]
    elif condition.get("reason") == "ReadinessGatesNotReady":
        summary, why = "runs, and somebody else has not said yet that it is ready", condition.get("message")
    else:
        return []
    # How long that may take is a matter of the deadline.
    remedy = "See why it does not answer as its readiness probe asks"
    return [_problem(pod, "readiness", summary, remedy, why, False)]
