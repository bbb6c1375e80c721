"""Why a workload does not become ready, and whether waiting would help: by containers, pods and events."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Literal, NamedTuple, get_args

from airflow_cd.kubernetes.image_pull import pull_failure, pull_reason
from airflow_cd.model.base import Frozen
from airflow_cd.model.text import printable

# The most telling first.
Category = Literal[
    "image",
    "configuration",
    "crash",
    "volume",
    "admission",
    "quota",
    "unschedulable",
    "node",
    "readiness",
    "paused",
    "deadline",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)
_LONGEST_LINE = 300
_MOST_LINES = 20

Event = Mapping[str, Any]


class Problem(Frozen):
    """
    One thing that keeps a workload from becoming ready.

    :param category: a stable word
    :param summary: one sentence, with the object's name, without its full stop
    :param detail: what the cluster, or the container itself, said of it
    :param remedy: what to do
    :param certain: it will not get better by waiting
    :param pod: the first pod that has it
    :param container: ... and the container of it
    """

    category: Category
    summary: str
    remedy: str
    certain: bool
    detail: str = ""
    pod: str | None = None
    container: str | None = None

    @property
    def text(self) -> str:
        """Return all of it for people: one line, and more only for what the container said."""
        if "\n" in self.detail or self.category == "crash" and self.detail:
            return f"{self.summary}. {self.remedy}. It said last:\n{self.detail}"
        return f"{self.summary}{': ' + self.detail if self.detail else ''}. {self.remedy}"


def told(text: object) -> str:
    """Return text from outside, fit for one line."""
    return printable(" ".join(str(text or "").split()), _LONGEST_LINE).rstrip(".")


def lines_told(text: str) -> str:
    """Return the last lines of text from outside, each fit for a line."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(printable(line, _LONGEST_LINE) for line in lines[-_MOST_LINES:])


def parsed(time: object) -> datetime | None:
    """Return a time of the API, ``None`` for what is not there or is none."""
    try:
        moment = datetime.fromisoformat(str(time).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def seconds_since(time: object, now: datetime) -> float:
    """Return how long a time of the API is ago; 0 when it is not there."""
    moment = parsed(time)
    return (now - moment).total_seconds() if moment else 0.0


def first_seen(event: Event) -> object:
    """Return when an event happened first."""
    return event.get("firstTimestamp") or event.get("eventTime") or _created(event)


def last_seen(event: Event) -> object:
    """Return when an event happened last."""
    series = event.get("series") or {}
    return series.get("lastObservedTime") or event.get("lastTimestamp") or first_seen(event)


def times_seen(event: Event) -> int:
    """Return how often an event happened."""
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def told_of(events: Iterable[Event], thing: Mapping[str, Any]) -> list[Event]:
    """Return the events about an object, the newest first."""
    uid = thing["metadata"].get("uid")
    found = [event for event in events if (event.get("involvedObject") or {}).get("uid") == uid]
    return sorted(found, key=lambda event: str(last_seen(event)), reverse=True)


def newest(events: Sequence[Event], reasons: Iterable[str], saying: str = "") -> Event | None:
    """Return the first of the events with one of these reasons whose message has these words."""
    wanted = set(reasons)
    return next(
        (
            event
            for event in events
            if event.get("reason") in wanted and saying in str(event.get("message") or "")
        ),
        None,
    )


def _created(event: Event) -> object:
    return (event.get("metadata") or {}).get("creationTimestamp")


# Of the kubelet. The last two are said by container runtimes that tell them apart (CRI-O).
_IMAGE = (
    *("InvalidImageName", "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError"),
    *("RegistryUnavailable", "SignatureValidationFailed"),
)
_NEVER_AN_IMAGE = ("InvalidImageName", "ErrImageNeverPull")
_START = ("RunContainerError", "CreateContainerError")
# How Docker and containerd call a program that could not be run.
_NOT_STARTED = ("ContainerCannotRun", "StartError")
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|permission denied|exec format error"
    r"|no command specified|not a directory",
    re.IGNORECASE,
)
# One that is not there may have been applied in the same breath. The kubelet looks again about every 10 s.
_CONFIGURATION_SECONDS = 10
# Twice in a row is no accident.
_CRASHES = 2
_PULLS = 2
# After that long without a crash the kubelet forgets those before (kubernetes.io, "Pod Lifecycle").
_FORGOTTEN_SECONDS = 600


class Container(NamedTuple):
    """
    A container as the rules look at it.

    :param events: about its pod, the newest first
    """

    pod: Mapping[str, Any]
    status: Mapping[str, Any]
    events: Sequence[Event]
    now: datetime

    @property
    def named(self) -> str:
        """Return its name and its pod's."""
        return f"Pod {self.pod['metadata']['name']}: container {self.status['name']}"

    @property
    def waiting(self) -> Mapping[str, Any]:
        """Return why it does not run yet, or not again."""
        return (self.status.get("state") or {}).get("waiting") or {}

    @property
    def runs(self) -> bool:
        """Return whether it runs now."""
        return (self.status.get("state") or {}).get("running") is not None

    @property
    def ended(self) -> Mapping[str, Any]:
        """Return how it ended the last time."""
        now, before = self.status.get("state") or {}, self.status.get("lastState") or {}
        return now.get("terminated") or before.get("terminated") or {}

    @property
    def own_events(self) -> list[Event]:
        """Return the events about this container."""
        field = f"{{{self.status['name']}}}"
        return [
            one
            for one in self.events
            if str((one.get("involvedObject") or {}).get("fieldPath")).endswith(field)
        ]

    def problem(self, category: Any, summary: str, remedy: str, detail: str, certain: bool) -> Problem:
        """Return a problem of this container."""
        return Problem(
            category=category,
            summary=f"{self.named} {summary}",
            remedy=remedy,
            detail=detail,
            certain=certain,
            pod=self.pod["metadata"]["name"],
            container=self.status["name"],
        )


def container_problem(one: Container) -> Problem | None:
    """Return what is wrong with a container, ``None`` when nothing is, or nothing yet."""
    reason = one.waiting.get("reason")
    if reason in _IMAGE:
        return _image(one, str(reason))
    if reason == "CreateContainerConfigError":
        return _configuration(one)
    if reason in _START or one.ended.get("reason") in _NOT_STARTED and not one.runs:
        return _start(one)
    return _crash(one)


def _image(one: Container, reason: str) -> Problem:
    pulls = [
        event
        for event in one.own_events
        if event.get("reason") == "Failed" and "Failed to pull image" in str(event.get("message"))
    ]
    why = str(one.waiting.get("message") or "")
    if pulls and why.startswith("Back-off"):
        why = str(pulls[0]["message"])
    image = str(one.status.get("image") or "")
    failure = pull_failure(why, image)
    # A message with a port or a time in it makes an event of its own each time.
    again = sum(times_seen(pull) for pull in pulls) >= _PULLS
    because = f" because {failure.cause}" if failure.cause else f" ({reason})"
    return one.problem(
        "image",
        f"has no image: {told(image)} cannot be pulled{because}",
        failure.remedy,
        told(pull_reason(why)),
        reason in _NEVER_AN_IMAGE or (again and failure.lasting),
    )


def _configuration(one: Container) -> Problem:
    failed = newest(one.own_events, ["Failed"])
    since = first_seen(failed) if failed else (one.pod.get("status") or {}).get("startTime")
    return one.problem(
        "configuration",
        "cannot be made as it is configured",
        "Correct the manifests, or add what they refer to",
        told(one.waiting.get("message")),
        seconds_since(since, one.now) > _CONFIGURATION_SECONDS,
    )


def _start(one: Container) -> Problem:
    failed = newest(one.own_events, ["Failed"])
    said = one.waiting.get("message") if one.waiting.get("reason") in _START else None
    why = str(said or one.ended.get("message") or (failed or {}).get("message") or "")
    certain = bool(_NO_PROGRAM.search(why)) or one.status.get("restartCount", 0) >= _CRASHES
    return one.problem(
        "configuration",
        "cannot be started",
        "Check its command, and that the image has that program for this kind of machine",
        told(why),
        certain,
    )


def _crash(one: Container) -> Problem | None:
    restarts = int(one.status.get("restartCount", 0))
    looping = one.waiting.get("reason") == "CrashLoopBackOff"
    if not one.ended or _well(one):
        return None
    times = restarts + (not one.runs)
    code = one.ended.get("exitCode")
    killed = newest(one.own_events, ["Killing"], "probe")
    summary = (
        f"ended with exit code {code}, {times} times by now" if times > 1 else f"ended: exit code {code}"
    )
    remedy = "See what it said, and correct it or its settings"
    if _out_of_memory(one.status):
        summary = f"used more memory than it may, {times} times by now"
        remedy = "Raise its limit of memory, or make it use less"
    elif killed is not None:
        failed = newest(one.own_events, ["Unhealthy"], "probe failed") or killed
        summary += f", ended by the cluster: {told(failed['message']).rstrip(': ')}"
        remedy = "Correct what that probe asks, or give it more time to start (startupProbe)"
    elif code == 0:
        remedy = "It has to go on running: correct its command"
    detail = lines_told(str(one.ended.get("message") or ""))
    return one.problem("crash", summary, remedy, detail, looping or restarts >= _CRASHES)


def _well(one: Container) -> bool:
    """Tell whether a container that ended once is nothing to worry about."""
    if one.runs:
        forgotten = seconds_since(one.ended.get("finishedAt"), one.now) > _FORGOTTEN_SECONDS
        return bool(one.status.get("ready")) or forgotten
    # An init container that did its part.
    state = one.status.get("state") or {}
    return bool(one.status.get("ready")) and (state.get("terminated") or {}).get("exitCode") == 0


def _out_of_memory(status: Mapping[str, Any]) -> bool:
    states = [status.get("state") or {}, status.get("lastState") or {}]
    return any((one.get("terminated") or {}).get("reason") == "OOMKilled" for one in states)


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
        summary, why = "runs, and a readiness gate has not reported it as ready yet", condition.get("message")
    else:
        return []
    # How long that may take is a matter of the deadline.
    remedy = "See why it does not answer as its readiness probe asks"
    return [_problem(pod, "readiness", summary, remedy, why, False)]


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
