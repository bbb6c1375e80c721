"""
Why a workload of Kubernetes does not become ready, and whether waiting would help.

Pure: it reads objects as the API gives them, plain dicts, and the clock it is given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from airflow_cd.model.pod_diagnosis import pod_problems
from airflow_cd.model.problem import (
    CATEGORIES,
    Category,
    Event,
    Problem,
    first_seen,
    newest,
    seconds_since,
    told,
    told_of,
)

_QUOTA = re.compile(r"exceeded quota|failed quota|must specify (limits|requests)|(maximum|minimum) \w+ usage")
_ACCOUNT = re.compile(r"service ?account", re.IGNORECASE)
_UNREACHABLE = re.compile(r"failed calling webhook|failed to call webhook|timeout|connection refused|EOF")
# What another object of the same release may bring is waited for a moment, what others must give back longer.
_SECONDS = {"quota": 20, "configuration": 10, "admission": 0}
_REMEDIES = {
    "quota": "Ask for less, or raise the namespace's ResourceQuota or LimitRange",
    "configuration": "Add the ServiceAccount to the namespace, or correct its name",
    "admission": "Change the manifests as the rule asks, or have the rule changed",
}


def diagnose(
    workload: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], events: Sequence[Event], now: datetime
) -> list[Problem]:
    """
    Return what keeps a workload from becoming ready: what is certain first, then the most telling.

    :param workload: a Deployment, StatefulSet or DaemonSet
    :param pods: those of its newest revision
    :param events: as many as are known; without them some causes are not seen, or seen later
    """
    found = [problem for pod in pods for problem in pod_problems(pod, events, now)]
    found += _of_workload(workload, pods, events, now)
    problems = _merged(sorted(found, key=lambda one: (not one.certain, CATEGORIES.index(one.category))))
    late = _deadline(workload, problems)
    if late is None:
        return problems
    known = [problem for problem in problems if problem.certain]
    return [*known, late, *problems[len(known) :]]


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """Return one of those that are the same for several pods."""
    groups: dict[tuple[str, str | None, bool], list[Problem]] = {}
    for one in problems:
        groups.setdefault((one.category, one.container, one.certain), []).append(one)
    return [_first_of(group) for group in groups.values()]


def _first_of(group: Sequence[Problem]) -> Problem:
    first, others = group[0], len({one.pod for one in group}) - 1
    if not others:
        return first
    more = "another pod" if others == 1 else f"{others} more pods"
    return first.model_copy(update={"summary": f"{first.summary}; so it is with {more}"})


def _of_workload(
    workload: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], events: Sequence[Event], now: datetime
) -> list[Problem]:
    found = []
    if _observed(workload) and (workload.get("spec") or {}).get("paused"):
        remedy = f"kubectl rollout resume deployment/{workload['metadata']['name']}"
        summary = f"{_named(workload)} is paused, so nothing of it changes"
        found.append(Problem(category="paused", summary=summary, remedy=remedy, certain=False))
    refused = _refusal(workload, events)
    if refused is not None:
        found.append(_refused(workload, pods, *refused, now))
    return found


def _refusal(workload: Mapping[str, Any], events: Sequence[Event]) -> tuple[str, object] | None:
    """Return why no pod could be made, and since when."""
    if workload.get("kind") == "Deployment":
        condition = _condition(workload, "ReplicaFailure") or {}
        if condition.get("status") != "True" or not _observed(workload):
            return None
        # It may be of older pods. What moved last is newer than the newest revision.
        times = [
            condition.get("lastTransitionTime"),
            (_condition(workload, "Progressing") or {}).get("lastUpdateTime"),
        ]
        return str(condition.get("message")), max(times, key=lambda time: str(time or ""))
    # The others have no such condition. A StatefulSet that may make no pod does not even say that it was
    # taken up.
    failed = newest(told_of(events, workload), ["FailedCreate"])
    return (str(failed.get("message")), first_seen(failed)) if failed else None


def _refused(
    workload: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], why: str, since: object, now: datetime
) -> Problem:
    category: Category = "admission"
    if _QUOTA.search(why):
        category = "quota"
    elif _ACCOUNT.search(why):
        category = "configuration"
    # As long as there are some, they may end, and make room. Deployments end old ones without asking.
    some = bool(pods) or (workload.get("kind") != "Deployment" and _has_pods(workload))
    certain = not some and not _UNREACHABLE.search(why)
    return Problem(
        category=category,
        summary=f"{_named(workload)} is not allowed to make {'more pods' if pods else 'a pod'}",
        remedy=_REMEDIES[category],
        detail=told(why),
        certain=certain and seconds_since(since, now) >= _SECONDS[category],
    )


def _deadline(workload: Mapping[str, Any], others: Sequence[Problem]) -> Problem | None:
    condition = _condition(workload, "Progressing") or {}
    if not _observed(workload) or condition.get("reason") != "ProgressDeadlineExceeded":
        return None
    allowed = (workload.get("spec") or {}).get("progressDeadlineSeconds", 600)
    known = next((one for one in others if not one.certain), None)
    return Problem(
        category="deadline",
        summary=f"{_named(workload)} got no further within its progressDeadlineSeconds ({allowed} s)",
        remedy=known.remedy if known else "Look at its pods, or allow more time",
        detail=": ".join(filter(None, (known.summary, known.detail))) if known else "",
        certain=True,
    )


def _observed(workload: Mapping[str, Any]) -> bool:
    seen = (workload.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= workload["metadata"].get("generation", 0))


def _has_pods(workload: Mapping[str, Any]) -> bool:
    status = workload.get("status") or {}
    return bool(status.get("replicas") or status.get("currentNumberScheduled"))


def _condition(workload: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    conditions = (workload.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), None)


def _named(workload: Mapping[str, Any]) -> str:
    return f"{workload.get('kind', 'Workload')} {workload['metadata']['name']}"
