"""Waiting for the pod of a command, for as long as that can go well."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_cd.exceptions import RunnerError
from airflow_cd.model.pod_diagnosis import pod_problems
from airflow_cd.model.problem import newest, told

if TYPE_CHECKING:
    from airflow_cd.model.runner import KubernetesRunnerSettings as Settings
    from airflow_cd.runners.kubernetes.jobs import Jobs
    from airflow_cd.runners.kubernetes.pod import Pod

log = logging.getLogger(__name__)

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
