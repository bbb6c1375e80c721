"""Rolls back an unhealthy release to the previous one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_cd.exceptions import (
    AccessDeniedError,
    FieldConflictError,
    NoPreviousReleaseError,
    NotReadyError,
)
from airflow_cd.links.release import ServiceLink
from airflow_cd.operators.retry_on_conflict import retry_on_conflict
from airflow_cd.operators.rollouts import FinishedRollout, RolloutFollower
from airflow_cd.releases.history import change_of, changes_alias, emit
from airflow_cd.releases.notifications import notify_of_change
from airflow_cd.releases.run import actor_of, task_states

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import Hold, Record


Finish = Callable[["Context", FinishedRollout, str], dict[str, Any]]


@dataclass(frozen=True)
class Restoration:
    """
    Rolls back to a release that ran before for a task, and lets the environment's health checks verify it.

    The rollback itself runs on the worker; checks that take long are watched in the triggerer. The task
    resumes in its methods ``rolled_out`` and ``verified``, which call :meth:`resume` and :meth:`verified`.

    :param follower: follows rollouts for the same task
    :param show_url: receives where the service answers, for the task's link
    :param finish: ends the task with a rollout; :meth:`end` by default
    """

    follower: RolloutFollower
    show_url: Callable[[str | None], None]
    finish: Finish | None = None

    def restore(
        self,
        context: Context,
        target: Target,
        *,
        bad: str,
        to: str | None = None,
        reason: str,
        hold: Hold | None = None,
    ) -> dict[str, Any]:
        """
        Roll back, and return what runs then.

        :param bad: digest of the release to replace
        :param to: digest to roll back to; the release before ``bad`` by default
        :raises TaskDeferred: the rollback, or its verification, goes on in the triggerer
        :raises AirflowFailException: there is no such release, or it does not become ready
        """
        from airflow_cd.targets.base import ProgressiveTarget
        from airflow_cd.targets.record import outcome_of

        actor = actor_of(context)
        try:
            if not isinstance(target, ProgressiveTarget):
                record = target.rollback(bad=bad, actor=actor, to=to, reason=reason, hold=hold)
                return self.restored(context, target, record)
            record = target.begin_rollback(bad=bad, actor=actor, to=to, reason=reason, hold=hold)
        except (AccessDeniedError, FieldConflictError, NoPreviousReleaseError, NotReadyError) as error:
            raise AirflowFailException(str(error)) from error
        if record.rollout is None:
            return self.restored(context, target, record)
        token, kind = record.rollout.token, record.rollout.kind
        record = self.follower.follow(record, target, {"kind": kind})
        return self._finish(context, FinishedRollout(target, record, outcome_of(record, token)), kind)

    def resume(
        self, context: Context, event: dict[str, Any], token: str, asked: str | None, kind: str
    ) -> dict[str, Any]:
        """Continue after a wait for the rollout; see :meth:`RolloutFollower.resume`."""
        return self._finish(context, self.follower.resume(context, event, token, asked, {"kind": kind}), kind)

    def end(self, context: Context, finished: FinishedRollout, kind: str) -> dict[str, Any]:
        """
        End the task with the rollout.

        :raises AirflowFailException: the release that ran before did not become ready
        """
        target, record, outcome = finished
        # An aborted deployment never replaced the release that ran before.
        if outcome.state == "promoted" or (outcome.state == "aborted" and kind == "deploy"):
            return self.restored(context, target, record)
        raise AirflowFailException(f"the rollback did not work out: {outcome.reason}")

    def restored(self, context: Context, target: Target, record: Record) -> dict[str, Any]:
        """Report the rollback and verify it; return what runs."""
        service, environment, current = self.follower.service, self.follower.environment, record.current
        restored = {
            "digest": current.release.digest if current else None,
            "version": current.release.version if current else None,
            "generation": record.generation,
        }
        self.follower.log.info("%s runs %s again", environment, restored["version"])
        change = change_of(context, service.name, environment, record)
        url = target.url()
        self.show_url(url)
        # Before it is verified: what serves requests has changed, whatever the verdict is.
        notify_of_change(context, service, change, url)
        checks = service.environment(environment).health
        if not checks or url is None:
            emit(context, change)
            return restored
        from airflow_cd.triggers.health import HealthTrigger

        stored = change.model_dump(mode="json") if change else None
        trigger = HealthTrigger.of(checks, url)
        if verdict := trigger.judge_now():
            return self.verified(context, verdict, restored, stored)
        raise TaskDeferred(
            trigger=trigger, method_name="verified", kwargs={"restored": restored, "change": stored}
        )

    def verified(
        self,
        context: Context,
        event: dict[str, Any],
        restored: dict[str, Any],
        change: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """
        Take the verdict on the restored release.

        :raises AirflowFailException: it is unhealthy too
        """
        from airflow_cd.model.history import Change

        if not event["healthy"]:
            raise AirflowFailException(
                f"rolled back to {restored['version']}, but it is unhealthy too: {event['reason']}. "
                "A person is needed."
            )
        log = self.follower.log
        log.info("Rolled back and verified: %s is healthy (%s)", restored["version"], event["reason"])
        emit(context, Change.model_validate(change) if change else None)
        return {**restored, "verified": True}

    def _finish(self, context: Context, finished: FinishedRollout, kind: str) -> dict[str, Any]:
        return (self.finish or self.end)(context, finished, kind)


# Why a rollout is aborted whose deployment is not there any more; it tells such an abort from others.
_ABANDONED = "its deployment failed, or was marked as failed"


class RollbackOperator(BaseOperator):
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
    :param reason: returns why to roll back, or skips the task; by default the state of ``health_task_id``
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
        reason: Callable[[Context], str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=[changes_alias(service.name, environment)], **kwargs)
        self.service = service
        self.environment = environment
        self.health_task_id = health_task_id
        self.reason = reason
        self.service_url: str | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Roll back if there is something to roll back.

        :raises TaskDeferred: another run deploys here, decides again later; or the verification begins
        :raises AirflowSkipException: the release is healthy, or something else runs by now
        :raises AirflowFailException: there is no previous release, or it does not become ready
        """
        return retry_on_conflict(partial(self._try, context), self.log)

    def next_turn(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Decide again, from the beginning, after a wait for another run."""
        return self.execute(context)

    def rolled_out(
        self, context: Context, event: dict[str, Any], token: str, asked: str | None = None, kind: str = ""
    ) -> dict[str, Any]:
        """Continue after a wait for the rollout."""
        return self._restoration.resume(context, event, token, asked, kind)

    def verified(
        self,
        context: Context,
        event: dict[str, Any],
        restored: dict[str, Any],
        change: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Take the verdict on the restored release."""
        return self._restoration.verified(context, event, restored, change)

    @property
    def _restoration(self) -> Restoration:
        follower = RolloutFollower(self.service, self.environment, self.log)
        return Restoration(follower, partial(setattr, self, "service_url"), self._finish)

    def _try(self, context: Context) -> dict[str, Any]:
        """
        Roll back if there is a reason to.

        :raises DeployConflictError: another run deploys here
        """
        from airflow_cd.targets.base import ProgressiveTarget

        reason = (self.reason or self._reason)(context)
        restoration = self._restoration
        target = restoration.follower.open_target()
        record = target.record()
        if token := _left_behind(record, actor_of(context)):
            assert isinstance(target, ProgressiveTarget), "only these have rollouts"
            return self._aborted(context, target, token)
        bad = self._bad_digest(context, record)
        self.log.warning("%s: rolling back %s", reason, bad)
        return restoration.restore(context, target, bad=bad, reason=reason)

    def _aborted(self, context: Context, target: ProgressiveTarget, token: str) -> dict[str, Any]:
        """Abort the rollout of this token only; verify and report an abort that was done before."""
        from airflow_cd.targets.record import outcome_of

        self.log.warning("%s: aborting it", _ABANDONED)
        record = target.abort(actor=actor_of(context), reason=_ABANDONED, token=token)
        if outcome_of(record, token).state == "under way":
            record = self._restoration.follower.follow(record, target, {"kind": "deploy"})
        return self._finish(context, FinishedRollout(target, record, outcome_of(record, token)), "deploy")

    def _finish(self, context: Context, finished: FinishedRollout, kind: str) -> dict[str, Any]:
        """
        End the task with the rollout.

        :raises AirflowSkipException: another rollout took the place of the one to abort
        """
        target, record, outcome = finished
        if kind == "deploy":
            if outcome.state == "replaced":
                raise AirflowSkipException(f"{outcome.reason}: this run has nothing to roll back there")
            if outcome.state == "promoted":  # before it could be aborted
                bad = self._bad_digest(context, record)
                return self._restoration.restore(context, target, bad=bad, reason=_ABANDONED)
            # ``deploy``, which would notify otherwise, has ended.
            self._restoration.follower.notify_of_abort(context, record)
        return self._restoration.end(context, finished, kind)

    def _reason(self, context: Context) -> str:
        """
        Return why to roll back.

        :raises AirflowSkipException: there is no reason to
        """
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
        # After a killed worker the rollback is done, and only its verification is not.
        return current.rolled_back_from or current.release.digest


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
