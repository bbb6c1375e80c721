"""Watches a deployed release until it is judged healthy or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped

from airflow_cd.links.release import ServiceLink
from airflow_cd.releases.run import load_release
from airflow_cd.releases.superseded import report_superseded, superseded_alias

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service


_STATE_KEY = "healthy"


class HealthCheckSensor(BaseOperator):
    """
    Waits until the environment's health checks agree: in the triggerer, on no worker slot, but for a wait
    that would be over before the slot was given back (3 s).

    The verdict is about this run's release alone: when another one is deployed meanwhile, the task is
    skipped as superseded; when it was rolled back meanwhile, or was never deployed because a person marked
    the deployment as success, the task fails. The XCom is the verdict with its samples, also when it is
    unhealthy.

    When the release is healthy, its rollback is skipped from here: to start a task only for it to skip itself
    takes some tenths of a second, and up to ``[workers] min_heartbeat_interval`` more where the supervisor
    misses its end by a hair (Airflow 3.3.2 tells of a skipped task when its process is gone, not before). The
    verdict is kept first, and stands for the retries of a try that was killed right then: the rollback would
    not run after another one.

    :param service: whose health
    :param environment: name of the environment
    :param release_task_id: the task whose XCom is the release
    :param deploy_task_id: the task whose XCom tells that it was deployed
    :param rollback_task_id: the task that has nothing to do when the release is healthy, if there is one
    :param approval_task_id: the task in which older releases may wait; they are superseded when this one is
        healthy. ``None`` where nobody is asked.
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ServiceLink(),)
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        service: Service,
        environment: str,
        deploy_task_id: str,
        release_task_id: str = "package",
        rollback_task_id: str | None = None,
        approval_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        if approval_task_id is not None:
            kwargs["outlets"] = [superseded_alias(service.name, environment)]
        super().__init__(**kwargs)
        self.deploy_task_id = deploy_task_id
        self.rollback_task_id = rollback_task_id
        self.approval_task_id = approval_task_id
        self.service = service
        self.environment = environment
        self.release_task_id = release_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Start watching. An environment without health checks is healthy at once.

        :raises DownstreamTasksSkipped: it is healthy, and ends as success; its rollback is skipped
        """
        from airflow_cd.triggers.health import HealthTrigger

        release, _ = load_release(context, self.service, self.release_task_id)
        url = self._still_ours(context, release)
        if kept := self._kept_verdict(context):
            self.log.info("A try of this task that was killed found it healthy: %s", kept["reason"])
            return self._healthy(context, release, kept)
        checks = self.service.environment(self.environment).health
        if not checks or url is None:
            unchecked = {"healthy": True, "reason": "no health checks are declared", "verdicts": {}}
            return self._healthy(context, release, unchecked)
        self.log.info("Watching %s: %s", url, ", ".join(check.name for check in checks))
        trigger = HealthTrigger.of(checks, url)
        if verdict := trigger.judge_now():
            return self._judged(context, release, verdict)
        self.defer(trigger=trigger, method_name="execute_complete")
        return {}

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """
        Take the verdict.

        :raises AirflowFailException: unhealthy
        :raises DownstreamTasksSkipped: healthy; the task ends as success, its rollback is skipped
        """
        release, _ = load_release(context, self.service, self.release_task_id)
        return self._judged(context, release, event)

    def _judged(self, context: Context, release: Release, event: dict[str, Any]) -> dict[str, Any]:
        self._still_ours(context, release)
        for name, verdict in event["verdicts"].items():
            self.log.info("%s: %s", name, verdict["reason"])
            for sample in verdict["samples"]:
                self.log.info("  %s %s", "ok  " if sample["ok"] else "BAD ", sample["detail"])
        if event["healthy"]:
            return self._healthy(context, release, event)
        context["ti"].xcom_push(key="return_value", value=event)
        raise AirflowFailException(
            f"{self.service.name} is unhealthy in {self.environment}: {event['reason']}"
        )

    def _healthy(self, context: Context, release: Release, verdict: dict[str, Any]) -> dict[str, Any]:
        self._supersede(context, release)
        if self.rollback_task_id is None:
            return verdict
        ti = context["ti"]
        context["task_state_store"].set(_STATE_KEY, {"cleared": _cleared(ti), "verdict": verdict})
        ti.xcom_push(key="return_value", value=verdict)
        raise DownstreamTasksSkipped(tasks=[self.rollback_task_id])

    def _kept_verdict(self, context: Context) -> dict[str, Any] | None:
        """Return the verdict of a try that was killed when it had skipped the rollback, or just before."""
        ti = context["ti"]
        if self.rollback_task_id is None or ti.try_number == 1:
            return None
        kept: Any = context["task_state_store"].get(_STATE_KEY)
        return kept["verdict"] if kept and kept["cleared"] == _cleared(ti) else None

    def _supersede(self, context: Context, release: Release) -> None:
        if self.approval_task_id is not None:
            report_superseded(
                context,
                self.service,
                self.environment,
                release,
                approval_task_id=self.approval_task_id,
                release_task_id=self.release_task_id,
            )

    def _still_ours(self, context: Context, release: Release) -> str | None:
        """Return the service's URL if this run's release is what runs; else skip."""
        from airflow_cd.releases.adapters import open_target

        target = open_target(self.service, self.service.environment(self.environment))
        current = target.record().current
        if current is not None and current.rolled_back_from == release.digest:
            raise AirflowFailException(
                f"{release.version} was rolled back in {self.environment} by {current.actor}: "
                f"{current.reason or 'no reason given'}"
            )
        if current is None or current.release.digest != release.digest:
            runs = f"{current.release.version} by {current.actor}" if current else "nothing"
            if context["ti"].xcom_pull(task_ids=self.deploy_task_id) is None:
                raise AirflowFailException(
                    f"{release.version} was not deployed: {self.deploy_task_id} left no result, so it "
                    f"was marked as success by hand. {self.environment} runs {runs}. Clear that task."
                )
            raise AirflowSkipException(f"superseded: {self.environment} runs {runs}, not {release.version}")
        self.service_url = target.url()
        return self.service_url


def _cleared(ti: RuntimeTaskInstanceProtocol) -> int:
    """
    Return a number that differs once the task was cleared: clearing it asks for a new verdict.

    Airflow counts the tries that are left from there, and keeps what is in the task's state store.
    """
    return ti.max_tries
