"""The Jobs of one job on a cluster, by the number of their command, and their pods."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_cd.runners.kubernetes.manifest import JOB, NUMBER, UNTIL, Command, job_of
from airflow_cd.runners.kubernetes.pod import Pod

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from airflow_cd.model.runner import KubernetesRunnerSettings as Settings

log = logging.getLogger(__name__)

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
        """Return what the cluster tells of a command's Job or pod; nothing where that may not be read."""
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
        """Remove all of the job. :raises ApiException: something is left"""
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
