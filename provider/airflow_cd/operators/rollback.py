"""Puts the previous release back when the new one turned out unhealthy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import NoPreviousReleaseError, NotReadyError
from airflow_cd.hooks.releases import actor_of, load_release
from airflow_cd.links.release import ServiceLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Environment, Service
    from airflow_cd.targets.base import Record


class RollbackOperator(BaseOperator):
    """
    The teardown of ``deploy``: skips itself when the release is healthy, else rolls back and verifies.

    It works from the target's own record, without artifact store or source, and only if this run's
    release is what runs and this run deployed it: another run's release is never undone. The restored
    release is watched by the environment's health checks, in the triggerer.

    :param service: what to roll back
    :param environment: name of the environment
    :param health_task_id: the task whose success means that nothing is to be done
    :param release_task_id: the task whose XCom is the release
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ServiceLink(),)
    ui_color = "#fce8e6"

    def __init__(
        self,
        *,
        service: Service,
        environment: str,
        health_task_id: str,
        release_task_id: str = "package",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service = service
        self.environment = environment
        self.health_task_id = health_task_id
        self.release_task_id = release_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Roll back if there is something to roll back.

        :raises AirflowSkipException: the release is healthy, or something else runs by now
        :raises AirflowFailException: there is no previous release, or it does not become ready
        """
        from airflow_cd.hooks.adapters import open_target

        state = self._health_state(context)
        if state in ("success", "skipped"):
            raise AirflowSkipException(f"{self.health_task_id} ended as {state}: nothing to roll back")
        environment = self.service.environment(self.environment)
        target = open_target(self.service, environment)
        bad = self._bad_digest(context, target.record())
        self.log.warning("%s ended as %s: rolling back %s", self.health_task_id, state, bad)
        try:
            record = target.rollback(bad=bad, actor=actor_of(context))
        except (NoPreviousReleaseError, NotReadyError) as error:
            raise AirflowFailException(str(error)) from error
        self.service_url = target.url()
        return self._verify(environment, record, self.service_url)

    def _health_state(self, context: Context) -> str | None:
        run = context["dag_run"]
        states = context["ti"].get_task_states(
            dag_id=run.dag_id, task_ids=[self.health_task_id], run_ids=[run.run_id]
        )
        state = states.get(run.run_id, {}).get(self.health_task_id)
        return None if state is None else str(getattr(state, "value", state))

    def _bad_digest(self, context: Context, record: Record) -> str:
        release, _ = load_release(context, self.release_task_id)
        current = record.current
        if current is None or current.actor != actor_of(context):
            by = f"{current.release.version}, deployed by {current.actor}" if current else "nothing"
            raise AirflowSkipException(
                f"{self.environment} runs {by}: this run has nothing to roll back there"
            )
        # Found again after a killed worker: the rollback is done, only its verification is not.
        if current.rolled_back_from == release.digest:
            return release.digest
        if current.release.digest != release.digest:
            raise AirflowSkipException(
                f"{self.environment} does not run {release.digest}: nothing to roll back"
            )
        return release.digest

    def _verify(self, environment: Environment, record: Record, url: str | None) -> dict[str, Any]:
        current = record.current
        restored = {
            "digest": current.release.digest if current else None,
            "version": current.release.version if current else None,
            "generation": record.generation,
        }
        self.log.info("%s runs %s again", self.environment, restored["version"])
        if not environment.health or url is None:
            return restored
        from airflow_cd.triggers.health import HealthTrigger

        self.defer(
            trigger=HealthTrigger.of(environment.health, url),
            method_name="verified",
            kwargs={"restored": restored},
        )
        return restored

    def verified(self, context: Context, event: dict[str, Any], restored: dict[str, Any]) -> dict[str, Any]:
        """Take the verdict on the restored release. :raises AirflowFailException: it is unhealthy too"""
        if not event["healthy"]:
            raise AirflowFailException(
                f"rolled back to {restored['version']}, but it is unhealthy too: {event['reason']}. "
                "A person is needed."
            )
        self.log.info("Rolled back and verified: %s is healthy (%s)", restored["version"], event["reason"])
        return {**restored, "verified": True}
