"""Rolls back an unhealthy release to the previous one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import (
    AccessDeniedError,
    FieldConflictError,
    NoPreviousReleaseError,
    NotReadyError,
)
from airflow_cd.links.release import ServiceLink
from airflow_cd.operators.retry_on_conflict import RetryOnConflictMixin
from airflow_cd.operators.rollouts import RolloutsMixin
from airflow_cd.releases.history import change_of, changes_alias, emit
from airflow_cd.releases.notifications import notify_of_change
from airflow_cd.releases.run import actor_of, load_ref, task_states

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import DeployOutcome, Hold, Record


class RollbackMixin(RolloutsMixin):
    """
    Brings a release that ran before back, and lets the environment's health checks verify it.

    Going back is done at once, on the worker; checks that take long are watched in the triggerer.
    """

    log: Any
    defer: Any
    service: Service
    environment: str
    service_url: str | None = None

    def _restore(
        self,
        context: Context,
        target: Target,
        *,
        bad: str,
        to: str | None = None,
        reason: str,
        hold: Hold | None = None,
    ) -> dict[str, Any]:
        """Put a release back; return what runs then, or defer until it does, or until that is verified."""
        from airflow_cd.targets.base import ProgressiveTarget
        from airflow_cd.targets.record import outcome_of

        going: Any = {"bad": bad, "actor": actor_of(context), "to": to, "reason": reason, "hold": hold}
        try:
            if not isinstance(target, ProgressiveTarget):
                return self._restored(context, target, target.rollback(**going))
            record = target.begin_rollback(**going)
        except (AccessDeniedError, FieldConflictError, NoPreviousReleaseError, NotReadyError) as error:
            raise AirflowFailException(str(error)) from error
        if record.rollout is None:
            return self._restored(context, target, record)
        token, kind = record.rollout.token, record.rollout.kind
        record = self._see_through(record, target, kind=kind)
        return self._over(context, target, record, outcome_of(record, token), kind=kind)

    def _over(
        self, context: Context, target: ProgressiveTarget, record: Record, outcome: DeployOutcome, **more: Any
    ) -> dict[str, Any]:
        """End with the rollout. :raises AirflowFailException: what ran before did not become ready"""
        if outcome.state == "promoted":
            return self._restored(context, target, record)
        if outcome.state == "aborted" and more["kind"] == "deploy":
            # What was bad was still on its way in: it was stopped, and what ran before never ceased to.
            return self._restored(context, target, record)
        raise AirflowFailException(f"the rollback did not work out: {outcome.reason}")

    def _restored(self, context: Context, target: Target, record: Record) -> dict[str, Any]:
        current = record.current
        restored = {
            "digest": current.release.digest if current else None,
            "version": current.release.version if current else None,
            "generation": record.generation,
        }
        self.log.info("%s runs %s again", self.environment, restored["version"])
        change = change_of(context, self.service.name, self.environment, record)
        self.service_url = url = target.url()
        # Before it is verified: what serves requests has changed, whatever comes of it.
        notify_of_change(context, self.service, change, url)
        checks = self.service.environment(self.environment).health
        if not checks or url is None:
            emit(context, change)
            return restored
        from airflow_cd.triggers.health import HealthTrigger

        told = change.model_dump(mode="json") if change else None
        trigger = HealthTrigger.of(checks, url)
        if verdict := trigger.judge_now():
            return self.verified(context, verdict, restored, told)
        self.defer(trigger=trigger, method_name="verified", kwargs={"restored": restored, "change": told})
        return restored

    def verified(
        self,
        context: Context,
        event: dict[str, Any],
        restored: dict[str, Any],
        change: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Take the verdict on the restored release. :raises AirflowFailException: it is unhealthy too"""
        from airflow_cd.model.history import Change

        if not event["healthy"]:
            raise AirflowFailException(
                f"rolled back to {restored['version']}, but it is unhealthy too: {event['reason']}. "
                "A person is needed."
            )
        self.log.info("Rolled back and verified: %s is healthy (%s)", restored["version"], event["reason"])
        emit(context, Change.model_validate(change) if change else None)
        return {**restored, "verified": True}


# Why a rollout is aborted whose deployment is not there any more; it tells such an abort from others.
_ABANDONED = "its deployment failed, or was marked as failed"


class RollbackOperator(RetryOnConflictMixin, RollbackMixin, BaseOperator):
    """
    The teardown of ``deploy``: rolls back and verifies.

    Where the release is healthy, ``health`` skips it, or it skips itself, as when a person marked ``health``.

    Where rollouts take their time, it also aborts the one that ``deploy`` began when that failed and the
    rollout is not over. That is so when its retries are used up in the middle, and when a person marks it as
    failed while no triggerer drives the rollout: Airflow tells only triggers that run of such a mark.

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

        :raises TaskDeferred: another run deploys here, decides again later; or the verification begins
        :raises AirflowSkipException: the release is healthy, or something else runs by now
        :raises AirflowFailException: there is no previous release, or it does not become ready
        """
        return self.in_turn(context)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Roll back if need be. :raises DeployConflictError: another run deploys here"""
        reason = self._reason(context)
        target = self._open_target()
        record = target.record()
        if token := _left_behind(record, actor_of(context)):
            return self._aborted(context, target, token)
        bad = self._bad_digest(context, record)
        self.log.warning("%s: rolling back %s", reason, bad)
        return self._restore(context, target, bad=bad, reason=reason)

    def _aborted(self, context: Context, target: ProgressiveTarget, token: str) -> dict[str, Any]:
        """Abort the rollout of this token only; verify and report an abort that was done before."""
        from airflow_cd.targets.record import outcome_of

        self.log.warning("%s: aborting it", _ABANDONED)
        record = target.abort(actor=actor_of(context), reason=_ABANDONED, token=token)
        if outcome_of(record, token).state == "under way":
            record = self._see_through(record, target, kind="deploy")
        return self._over(context, target, record, outcome_of(record, token), kind="deploy")

    def _over(
        self, context: Context, target: ProgressiveTarget, record: Record, outcome: DeployOutcome, **more: Any
    ) -> dict[str, Any]:
        """
        End with the rollout.

        :raises AirflowSkipException: another rollout took the place of the one to abort
        """
        if more["kind"] == "deploy":
            if outcome.state == "replaced":
                raise AirflowSkipException(f"{outcome.reason}: this run has nothing to roll back there")
            if outcome.state == "promoted":  # it arrived before it could be aborted
                bad = self._bad_digest(context, record)
                return self._restore(context, target, bad=bad, reason=_ABANDONED)
            # ``deploy`` is not there any more to do so.
            self._tell_of_abort(context, record)
        return super()._over(context, target, record, outcome, **more)

    def _reason(self, context: Context) -> str:
        """Return why to roll back. :raises AirflowSkipException: there is no reason to"""
        state = task_states(context, [self.health_task_id])[self.health_task_id]
        if state in ("success", "skipped"):
            raise AirflowSkipException(f"{self.health_task_id} ended as {state}: nothing to roll back")
        verdict = context["ti"].xcom_pull(task_ids=self.health_task_id) or {}
        return f"{self.health_task_id} ended as {state}: {verdict.get('reason', 'no verdict')}"

    def _bad_digest(self, context: Context, record: Record) -> str:
        current = record.current
        if current is None or current.actor != actor_of(context):
            by = f"{current.release.version}, deployed by {current.actor}" if current else "nothing"
            raise AirflowSkipException(
                f"{self.environment} runs {by}: this run has nothing to roll back there"
            )
        release = load_ref(context, self.release_task_id)
        # Found again after a killed worker: the rollback is done, only its verification is not.
        if current.rolled_back_from == release.digest:
            return release.digest
        if current.release.digest != release.digest:
            raise AirflowSkipException(
                f"{self.environment} does not run {release.digest}: nothing to roll back"
            )
        return release.digest


def _left_behind(record: Record, actor: str) -> str | None:
    """Return the token of the rollout that a deployment left behind, also when it was aborted for that."""
    rollout, aborted = record.rollout, record.aborted
    if rollout is not None:
        own = rollout.kind == "deploy" and rollout.candidate.actor == actor
        return rollout.token if own else None
    # Found again after a killed worker: the abort is done, but not verified and perhaps not reported.
    if aborted is not None and (aborted.actor, aborted.reason) == (actor, _ABANDONED):
        return aborted.token
    return None
