"""The Jobs of a run, one per command: created, found again, and awaited until their pod starts."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cd.exceptions import CommandError, RunnerError
from airflow_cd.kubernetes.diagnosis import newest, pod_problems, told
from airflow_cd.runners.kubernetes.job_manifest import (
    COMMAND,
    HOLD,
    JOB,
    NUMBER,
    RECEIVE,
    UNTIL,
    Command,
    job_of,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from airflow_cd.model.runner import KubernetesRunnerSettings as Settings

log = logging.getLogger(__name__)

# The end of a command whose pod was deleted: its exit code is not known.
_INTERRUPTED = (137, 143, 255)
# How container runtimes say that a program could not be run: for good, and before they try it again.
_NOT_RUN = ("ContainerCannotRun", "StartError", "RunContainerError", "CreateContainerError")
_NO_PROGRAM = re.compile(
    r"executable file not found|no such file or directory|exec format error|not a directory|is a directory"
)
_NOT_ALLOWED = re.compile(r"permission denied")


class End(NamedTuple):
    """
    How a command ended.

    :param out_of_memory: it used more than it may
    """

    code: int
    out_of_memory: bool = False


class Pod:
    """
    A pod of a command, as the cluster last reported it.

    :param content: as the API gives it
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self._status: Mapping[str, Any] = content.get("status") or {}

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.content["metadata"]["name"])

    @property
    def waits(self) -> bool:
        """Return whether it waits for the workspace."""
        return "running" in self._state(RECEIVE)

    @property
    def filled(self) -> bool:
        """Return whether it got the workspace."""
        return (self._state(RECEIVE).get("terminated") or {}).get("exitCode") == 0

    @property
    def holds(self) -> bool:
        """Return whether it got the workspace, and it still is there or will be."""
        return self.filled and not self.is_leaving and "terminated" not in self._state(HOLD)

    @property
    def usable(self) -> bool:
        """Return whether a command can be gone on with: nobody else ended it, and its workspace is there."""
        return self.holds and not ((end := self.end) and self._interrupted(end))

    @property
    def begun(self) -> bool:
        """Return whether the command runs, or ran."""
        return any(state in self._state(COMMAND) for state in ("running", "terminated"))

    @property
    def is_leaving(self) -> bool:
        """Return whether it was deleted, or is being deleted."""
        disrupted = self._condition("DisruptionTarget").get("status") == "True"
        evicted = self._status.get("phase") == "Failed" and self._status.get("reason") is not None
        return bool(self.content["metadata"].get("deletionTimestamp")) or disrupted or evicted

    @property
    def end(self) -> End | None:
        """Return how the command ended; ``None`` when it has not."""
        ended = self._state(COMMAND).get("terminated")
        if ended is None:
            return None
        return End(int(ended["exitCode"]), ended.get("reason") == "OOMKilled")

    def need_program(self, argv: Sequence[str], image: str) -> None:
        """
        Make sure that the command could be started, as far as is known.

        :raises CommandError: the image has no such program (127), or cannot run it (126)
        :raises RunnerError: it could not for another reason
        """
        state = self._state(COMMAND)
        said = state.get("terminated") or state.get("waiting") or {}
        if said.get("reason") not in _NOT_RUN:
            return
        why = " ".join(str(said.get("message") or "").split())
        reason = f"{argv[0]!r} cannot be run in {image}: {why}"
        if _NO_PROGRAM.search(why):
            raise CommandError(argv, 127, [reason])
        if _NOT_ALLOWED.search(why):
            raise CommandError(argv, 126, [reason])
        if "terminated" in state:
            raise RunnerError(reason)

    def need_own_end(self) -> None:
        """
        Make sure that the command was not ended from outside.

        :raises RunnerError: its pod was evicted or removed, or its node failed
        """
        end = self.end
        lost = self.is_leaving or (end is not None and end.code and not self.holds and self._interrupted(end))
        if not lost:
            return
        disrupted = self._condition("DisruptionTarget")
        why = [
            *(self._status.get("reason"), self._status.get("message")),
            *(disrupted.get("reason"), disrupted.get("message")),
        ]
        told = ": ".join(dict.fromkeys(str(part) for part in why if part)) or "it was deleted"
        raise RunnerError(f"the cluster ended pod {self.name} before its command was done: {told}")

    def _interrupted(self, end: End) -> bool:
        return end.code in _INTERRUPTED and not end.out_of_memory

    def _condition(self, kind: str) -> Mapping[str, Any]:
        conditions = self._status.get("conditions") or []
        return next((one for one in conditions if one.get("type") == kind), {})

    def _state(self, container: str) -> Mapping[str, Any]:
        kinds = ("initContainerStatuses", "containerStatuses")
        statuses = [one for kind in kinds for one in self._status.get(kind) or []]
        return next((one.get("state") or {} for one in statuses if one["name"] == container), {})


_Json = dict[str, Any]


class Jobs:
    """
    What there is on the cluster of one job.

    :param name: of the job, as the cluster takes it
    """

    def __init__(self, client: ApiClient, settings: Settings, name: str) -> None:
        from kubernetes.client import BatchV1Api, CoreV1Api

        self._settings, self._name, self.namespace = settings, name, settings.namespace
        self._batch, self._core = BatchV1Api(client), CoreV1Api(client)
        self._uids: dict[int, str] = {}

    def resume(self) -> int:
        """
        Find what a killed try of the same task left, and remove what cannot be gone on with.

        The workspace goes from pod to pod: where the last one that got it has it no more, all is done again.

        :returns: how many commands began before
        """
        jobs = {int(job["metadata"]["labels"][NUMBER]): job for job in self._listed(f"{JOB}={self._name}")}
        self._uids = {number: job["metadata"]["uid"] for number, job in jobs.items()}
        begun, last = 0, None
        while (pod := self.pod(begun)) is not None and pod.filled:
            begun, last = begun + 1, pod
        if last is not None and not last.usable:
            begun = 0
        for number, job in jobs.items():
            if number >= begun:
                self._delete(job["metadata"]["name"])
                self._uids.pop(number)
        return begun

    def create(self, command: Command) -> None:
        """Make the Job of a command, which waits for the workspace."""
        body = job_of(self._settings, self._name, command)
        response = self._batch.create_namespaced_job(self.namespace, body, _preload_content=False)
        self._uids[command.number] = json.loads(response.data)["metadata"]["uid"]

    def pod(self, number: int) -> Pod | None:
        """Return the pod of a command, as it is now; ``None`` when there is none, yet or any more."""
        uid = self._uids.get(number)
        if uid is None:
            return None
        response = self._core.list_namespaced_pod(
            self.namespace, label_selector=f"{JOB}={self._name},{NUMBER}={number}", _preload_content=False
        )
        # A Job of the same name may have been removed just now, and its pod not yet. Old clusters put
        # another pod in the place of one that was deleted; that one gets no workspace.
        found = [Pod(one) for one in json.loads(response.data)["items"] if _belongs_to(one, uid)]
        return max(found, key=lambda pod: (pod.filled, pod.waits), default=None)

    def events(self, number: int, pod: Pod | None) -> list[_Json]:
        """Return what the cluster tells of a command's Job or pod; nothing where that cannot be read."""
        from kubernetes.client import ApiException

        uid = self._uids.get(number) if pod is None else pod.content["metadata"]["uid"]
        with suppress(ApiException):
            response = self._core.list_namespaced_event(
                self.namespace, field_selector=f"involvedObject.uid={uid}", _preload_content=False
            )
            return list(json.loads(response.data)["items"])
        return []

    def end(self) -> None:
        """Remove the newest Job and its pod at once."""
        from kubernetes.client import ApiException

        if not self._uids:
            return
        number = max(self._uids)
        pod = self.pod(number)
        self._delete(f"{self._name}-{number}")  # first, else old clusters make another pod
        if pod is not None:
            with suppress(ApiException):  # it is gone
                self._core.delete_namespaced_pod(pod.name, self.namespace, grace_period_seconds=1)

    def remove(self) -> None:
        """
        Remove all of the job.

        :raises ApiException: something is left
        """
        for number in list(self._uids):
            self._delete(f"{self._name}-{number}")
            self._uids.pop(number)

    def remove_abandoned(self) -> None:
        """Remove what killed workers left of any job, and nobody came back for within a day."""
        for job in self._listed(UNTIL):
            if float(job["metadata"]["labels"][UNTIL]) < time.time():
                with suppress(Exception):
                    self._delete(job["metadata"]["name"])

    def _listed(self, selector: str) -> list[_Json]:
        response = self._batch.list_namespaced_job(
            self.namespace, label_selector=selector, _preload_content=False
        )
        return list(json.loads(response.data)["items"])

    def _delete(self, job: str) -> None:
        """Delete a Job; the cluster deletes its pods then."""
        from kubernetes.client import ApiException

        try:
            self._batch.delete_namespaced_job(job, self.namespace, propagation_policy="Background")
        except ApiException as error:
            if error.status != 404:
                raise


def _belongs_to(pod: _Json, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or [])


_EVERY_SECONDS = 0.3
# Most pods are there before that, and need no explanation.
_EXPLAINED_SECONDS = 3
# What may pass while a pod cannot be made: others use up the quota, or a webhook does not answer.
_MAY_PASS = re.compile(r"exceeded quota|failed (calling|to call) webhook|timeout|connection refused|EOF")
_REMEDIES = {
    "image": "correct `image` (or `helper`) of `runner.kubernetes`, or name its registry's login in "
    "`image_pull_secrets`",
    "unschedulable": "lower `memory` or `cpus` of `runner.kubernetes`, correct its `node_selector`, "
    "or add nodes",
    "quota": "lower or set `memory` and `cpus` of `runner.kubernetes`, or raise the quota",
}


def wait_for(jobs: Jobs, settings: Settings, number: int, ready: Callable[[Pod], bool]) -> Pod:
    """
    Return a command's pod as soon as it is as it should be.

    :raises RunnerError: it will not be, or was not in time
    :raises CommandError: the command's program is what is wrong
    """
    explained = time.monotonic()
    deadline = explained + settings.start_timeout.total_seconds()
    why, had = "", False
    while True:
        late = time.monotonic() > deadline
        with _away(late):
            pod = jobs.pod(number)
            if pod is not None and ready(pod):
                return pod
            _need_one(pod, had)
            had = had or pod is not None
            if late or time.monotonic() - explained > _EXPLAINED_SECONDS:
                explained = time.monotonic()
                certain, found = _explanation(jobs, number, pod)
                if certain:
                    raise RunnerError(f"a command cannot begin: {found}")
                if found and found != why:
                    log.info("The command waits: %s", found)
                why = found or why
        if late:
            raise RunnerError(_in_no_time(settings, why))
        time.sleep(_EVERY_SECONDS)


@contextmanager
def _away(late: bool) -> Iterator[None]:
    """Let an API server be away for as long as there is time."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ApiException, HTTPError) as error:
        status = getattr(error, "status", None) or 500
        if late or status < 500:
            raise
        log.info("The cluster does not answer: %s", error)


def _need_one(pod: Pod | None, had: bool) -> None:
    if pod is not None:
        pod.need_own_end()
    elif had:
        raise RunnerError("the cluster removed a command's pod before it began")


def _in_no_time(settings: Settings, why: str) -> str:
    limit = f"`start_timeout: {settings.start_timeout.total_seconds():g}s` of its runner"
    return f"a command did not begin within {limit}: {why or 'the cluster does not say why'}"


def _explanation(jobs: Jobs, number: int, pod: Pod | None) -> tuple[bool, str]:
    """Return whether waiting is of no use, and what is known about why."""
    events = jobs.events(number, pod)
    if pod is None:
        refused = newest(events, ["FailedCreate"])
        why = told((refused or {}).get("message"))
        if not why:
            return False, ""
        return not _MAY_PASS.search(why), f"no pod can be made: {why}; {_REMEDIES['quota']}"
    problems = pod_problems(pod.content, events, datetime.now(timezone.utc))
    problems.sort(key=lambda one: not one.certain)
    if not problems:
        return False, ""
    first = problems[0]
    remedy = _REMEDIES.get(first.category, first.remedy)
    detail = f": {first.detail}" if first.detail else ""
    return first.certain, f"{first.summary}{detail}; {remedy}"
