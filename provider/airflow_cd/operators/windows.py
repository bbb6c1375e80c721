"""Waiting until an environment may be deployed to, or until somebody who may says that it is done now."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_cd.exceptions import WindowClosedError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.approval import Decision
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.model.window import Closed

# Under this key a task that waits, or failed, tells why: {"reason": ..., "opens_at": ISO time or None}.
CLOSED = "closed"


class WindowsMixin:
    """
    Lets an operator keep to an environment's windows and freezes.

    Waiting takes no worker slot. Where nobody may override, the task waits in the triggerer; else it parks as
    a question to those who may, whose answer is kept where only workers write, for this run, this release and
    until the opening that they read of.
    """

    log: Any
    defer: Any
    task_id: Any
    service: Service
    environment: str

    def _pass_windows(self, context: Context, release: Release) -> str | None:
        """
        Return who let the release in although the environment is closed; ``None`` when it is open.

        :raises TaskDeferred: it is closed
        :raises TaskAwaitingInput: it is closed, and somebody may override that
        :raises WindowClosedError: it is closed, and the release is not to wait, or would do so for ever
        """
        environment = self.service.environment(self.environment)
        now = datetime.now(timezone.utc)
        closed = self.service.closed(environment, now)
        if closed is None:
            return None
        told = f"{self.environment} may not be deployed to now: {closed.reason}"
        if override := self._override(context, environment, release, now):
            by = f"window override by {override.by}: {override.reason or 'no reason given'}"
            self.log.warning("%s. Deploying all the same: %s", told, by)
            return by
        opens_at = closed.opens_at.isoformat() if closed.opens_at else None
        context["ti"].xcom_push(key=CLOSED, value={"reason": closed.reason, "opens_at": opens_at})
        if environment.when_closed == "fail":
            when = f"it opens at {opens_at}" if opens_at else "no opening is in sight"
            raise WindowClosedError(f"{told}; {when}. Clear this task when it is open.")
        if environment.window_approvers:
            self._ask_to_override(context, environment, release, closed, now)
        if closed.opens_at is None:
            raise WindowClosedError(f"{told}; no opening is in sight. Change the windows and clear this.")
        self.log.info(
            "%s. Waiting until it opens at %s; clear this task to look again earlier.", told, opens_at
        )
        self._wait_until(closed.opens_at, now)
        return None  # never reached: waiting leaves the task

    def window_opened(self, context: Context, event: Any) -> Any:
        """Decide anew, from the beginning."""
        return self.execute(context)

    def window_answered(
        self, context: Context, event: dict[str, Any], digest: str, until: str | None = None
    ) -> Any:
        """
        Keep the answer, if there is one, and decide anew.

        :param digest: the release the question was about
        :param until: when the environment opens by itself, in ISO format
        """
        from airflow_cd.hooks.decisions import keep_decision
        from airflow_cd.hooks.questions import reason_in
        from airflow_cd.model.approval import ApprovalOutcome, Decision
        from airflow_cd.model.window_request import DEPLOY_NOW

        by = (event.get("responded_by_user") or {}).get("id")
        meant = event.get("chosen_options") == [DEPLOY_NOW]
        if meant and by in self.service.environment(self.environment).window_approvers:
            decision = Decision(
                outcome=ApprovalOutcome.APPROVED,
                digest=digest,
                by=by,
                at=event.get("responded_at"),
                reason=reason_in(event) or None,
                until=datetime.fromisoformat(until) if until else None,
            )
            keep_decision(context, self.service, self.environment, self.task_id, decision)
        elif "error" not in event:
            why = "is not among the window_approvers" if meant else "answered another question"
            self.log.warning("This answer does not count: %r %s.", by, why)
        return self.execute(context)

    def execute(self, context: Context) -> Any:
        """Do the operator's work."""
        raise NotImplementedError

    def _override(
        self, context: Context, environment: Environment, release: Release, now: datetime
    ) -> Decision | None:
        """Return the answer that lets this release in now, if there is one."""
        from airflow_cd.hooks.decisions import kept_decision

        if not environment.window_approvers:
            return None
        kept = kept_decision(context, self.service, self.environment, self.task_id)
        if kept is None or kept.by not in environment.window_approvers or kept.digest != release.digest:
            return None
        return kept if kept.until is None or now < kept.until else None

    def _ask_to_override(
        self, context: Context, environment: Environment, release: Release, closed: Closed, now: datetime
    ) -> None:
        """Park until somebody answers or the environment opens; return when the question cannot be put."""
        from airflow.sdk.exceptions import TaskAwaitingInput

        from airflow_cd.hooks.questions import put_question, reason_form
        from airflow_cd.links.release import approval_url
        from airflow_cd.model import window_request
        from airflow_cd.model.approval_request import digest_in

        ti, users = context["ti"], environment.window_approvers
        later = environment.approval.approvers if environment.strategy and environment.approval else ()
        shown = put_question(
            ti.id,
            subject=window_request.window_subject(release, self.environment),
            body=window_request.window_body(release, self.environment, closed),
            options=[window_request.DEPLOY_NOW, *_later_options(environment)],
            params={"reason": reason_form().get_param("reason").serialize()},
            assigned=sorted({*users, *later}),
        )
        if digest_in(shown) != release.digest:
            # Airflow keeps one question for the whole run, and this run's release is another one by now.
            self.log.warning(
                "Nobody can be asked to override: Airflow still shows another release's question."
            )
            return
        self.log.info(
            "%s may not be deployed to now: %s; %s. Waiting for that, or for an override by %s: %s",
            *(self.environment, closed.reason, window_request.opening(closed), ", ".join(users)),
            approval_url(ti.dag_id, ti.run_id, ti.task_id),
        )
        raise TaskAwaitingInput(
            method_name="window_answered",
            timeout=max(closed.opens_at - now, _settling()) if closed.opens_at else None,
            kwargs={
                "digest": release.digest,
                "until": closed.opens_at.isoformat() if closed.opens_at else None,
            },
        )

    def _wait_until(self, opens_at: datetime, now: datetime) -> None:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        self.defer(
            trigger=DateTimeTrigger(moment=max(opens_at, now + _settling())), method_name="window_opened"
        )


def _later_options(environment: Environment) -> list[str]:
    """Airflow keeps a task's first question: what a rollout asks later has to be among its answers."""
    from airflow_cd.model.rollout_request import ABORT, GO_ON

    return [GO_ON, ABORT] if environment.strategy is not None else []


def _settling() -> timedelta:
    from airflow_cd.triggers.settling import defer_delay_seconds

    return timedelta(seconds=defer_delay_seconds())
