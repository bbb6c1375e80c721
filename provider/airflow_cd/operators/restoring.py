"""What every way of rolling back has in common: going back, verifying, and telling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.exceptions import (
    AccessDeniedError,
    FieldConflictError,
    NoPreviousReleaseError,
    NotReadyError,
)
from airflow_cd.hooks.history import change_of, emit
from airflow_cd.hooks.notifications import notify_of_change
from airflow_cd.hooks.releases import actor_of
from airflow_cd.operators.rollouts import RolloutsMixin

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
        from airflow_cd.model.change import Change

        if not event["healthy"]:
            raise AirflowFailException(
                f"rolled back to {restored['version']}, but it is unhealthy too: {event['reason']}. "
                "A person is needed."
            )
        self.log.info("Rolled back and verified: %s is healthy (%s)", restored["version"], event["reason"])
        emit(context, Change.model_validate(change) if change else None)
        return {**restored, "verified": True}
