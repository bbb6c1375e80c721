"""What is wrong with a container of Kubernetes, by its status and the events of its pod."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow_cd.model.image_pull import pull_failure, pull_reason
from airflow_cd.model.problem import (
    Event,
    Problem,
    first_seen,
    lines_told,
    newest,
    seconds_since,
    times_seen,
    told,
)

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
