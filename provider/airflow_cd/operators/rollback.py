"""Puts the previous release back when the new one turned out unhealthy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from airflow_cd.hooks.history import changes_alias
from airflow_cd.hooks.releases import actor_of, load_ref
from airflow_cd.hooks.task_states import task_states
from airflow_cd.links.release import ServiceLink
from airflow_cd.operators.restoring import RestoringMixin
from airflow_cd.operators.turns import TurnsMixin

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.targets.record import Record


class RollbackOperator(TurnsMixin, RestoringMixin, BaseOperator):
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
        super().__init__(outlets=[changes_alias(service.name, environment)], **kwargs)
        self.service = service
        self.environment = environment
        self.health_task_id = health_task_id
        self.release_task_id = release_task_id

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Roll back if there is something to roll back.

        :raises TaskDeferred: somebody else deploys here, decides anew later; or the verification begins
        :raises AirflowSkipException: the release is healthy, or something else runs by now
        :raises AirflowFailException: there is no previous release, or it does not become ready
        """
        return self.in_turn(context)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Roll back if need be. :raises DeployConflictError: somebody else deploys here"""
        reason = self._reason(context)
        target = self._open_target()
        bad = self._bad_digest(context, target.record())
        self.log.warning("%s: rolling back %s", reason, bad)
        return self._restore(context, target, bad=bad, reason=reason)

    def _reason(self, context: Context) -> str:
        """Return why to roll back. :raises AirflowSkipException: there is no reason to"""
        state = task_states(context, [self.health_task_id])[self.health_task_id]
        if state in ("success", "skipped"):
            raise AirflowSkipException(f"{self.health_task_id} ended as {state}: nothing to roll back")
        verdict = context["ti"].xcom_pull(task_ids=self.health_task_id) or {}
        return f"{self.health_task_id} ended as {state}: {verdict.get('reason', 'no verdict')}"

    def _bad_digest(self, context: Context, record: Record) -> str:
        release = load_ref(context, self.release_task_id)
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
