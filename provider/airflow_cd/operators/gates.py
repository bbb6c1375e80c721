"""
The gates of a deployment: what a release must pass before its environment takes it.

:data:`GATES` has them in their order. Each is asked again after every wait: what was true before might not be
true after it. The signature is checked before all of them, and before the target is asked anything; see
:class:`~airflow_cd.operators.deploy.DeployOperator`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
    TaskDeferred,
)

from airflow_cd.exceptions import ApprovalError, WindowClosedError
from airflow_cd.releases.run import actor_of, superseded_by

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_cd.model.approval import Decision
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.model.window import Closed
    from airflow_cd.targets.record import Record

# XCom key of a task that waits for a window, or failed at one:
# {"reason": ..., "opens_at": ISO time or None}.
CLOSED = "closed"


@dataclass(frozen=True)
class Attempt:
    """
    One attempt to deploy a release.

    :param context: of the task that deploys
    :param task_id: of that task
    :param environment: name of the environment
    :param release: the candidate
    :param manifest: digest of its manifest, which covers everything that is deployed
    :param record: what the environment runs
    :param approval_task_id: the approval task; ``None`` where no approval is asked for
    """

    context: Context
    task_id: str
    service: Service
    environment: str
    release: Release
    manifest: str
    record: Record
    approval_task_id: str | None
    log: Logger

    @property
    def settings(self) -> Environment:
        """Return the environment's settings."""
        return self.service.environment(self.environment)

    def started_by_hand_after(self, moment: datetime) -> bool:
        """Return whether a person triggered the run after a moment. Clearing an old run is no new start."""
        from airflow_cd.releases.people import is_person

        run = self.context["dag_run"]
        by_hand = run.run_type == "manual" and is_person(run.triggering_user_name)
        return bool(by_hand and run.run_after > moment)

    def decision(self) -> Decision | None:
        """Return the decision of a person in this run, if there is one."""
        from airflow_cd.releases.decisions import kept_decision

        if self.approval_task_id is None:
            return None
        return kept_decision(self.context, self.service, self.environment, self.approval_task_id)


def newest(attempt: Attempt) -> None:
    """
    Refuse a release that is older than what the environment runs or is being given.

    :raises AirflowSkipException: superseded
    """
    release = attempt.release
    if newer := superseded_by(attempt.service, release, attempt.record, on_its_way=True):
        raise AirflowSkipException(
            f"superseded: {attempt.environment} runs {newer.version} ({newer.revision.short}), "
            f"which is newer than {release.version} ({release.revision.short})"
        )


def not_aborted(attempt: Attempt) -> None:
    """
    Refuse to try an aborted release again without a person, in a retry of this task or in another run.

    :raises AirflowFailException: this task's own rollout was aborted
    :raises AirflowSkipException: another run's was
    """
    aborted, release = attempt.record.aborted, attempt.release
    if aborted is None or aborted.release.digest != release.digest:
        return
    if aborted.actor == actor_of(attempt.context):
        raise AirflowFailException(f"aborted: {aborted.reason}")
    if not attempt.started_by_hand_after(aborted.at):
        raise AirflowSkipException(
            f"{release.version} was aborted in {attempt.environment} ({aborted.reason}); "
            "trigger the DAG by hand to try it again"
        )


def not_rolled_back(attempt: Attempt) -> None:
    """
    Refuse to try a release again that was rolled back, without a person.

    :raises AirflowSkipException: it was rolled back
    """
    current = attempt.record.current
    if current is None or current.rolled_back_from != attempt.release.digest:
        return
    if not attempt.started_by_hand_after(current.deployed_at):
        raise AirflowSkipException(
            f"{attempt.release.version} was rolled back in {attempt.environment}; "
            "trigger the DAG by hand to try it again"
        )


def not_held(attempt: Attempt) -> None:
    """
    Refuse to deploy to an environment that a person rolled back, without a later decision of a person.

    :raises AirflowSkipException: the environment is held
    """
    hold = attempt.record.hold
    if hold is None or attempt.started_by_hand_after(hold.since):
        return
    decision = attempt.decision()
    if decision is not None and decision.at is not None and decision.at > hold.since:
        return
    raise AirflowSkipException(
        f"{attempt.environment} is held since {hold.by} rolled it back at "
        f"{hold.since.isoformat(timespec='seconds')} ({hold.reason or 'no reason given'}); "
        "trigger the DAG by hand to deploy and lift the hold"
    )


def approved(attempt: Attempt) -> str | None:
    """
    Return who approved the release; refuse it without the approval that the environment requires.

    :raises ApprovalError: it was not approved
    :raises SourceError: the repository cannot be read, so that nobody can tell whose work this is
    """
    from airflow_cd.model.approval import Approval, ApprovalOutcome
    from airflow_cd.releases.authors import authors_now

    if attempt.approval_task_id is None:
        return None
    policy = attempt.settings.approval or Approval()
    decision, authors = attempt.decision(), attempt.release.authors
    if decision is not None and decision.outcome is ApprovalOutcome.APPROVED:
        authors = authors_now(attempt.service, attempt.release, attempt.record, policy)
    allowed = policy.check(decision, attempt.manifest, authors, datetime.now(timezone.utc))
    attempt.log.info("Approval: %s", allowed)
    return allowed


def window_open(attempt: Attempt) -> str | None:
    """
    Return who overrode a closed window; wait for the opening, or for an override, without a worker slot.

    Where nobody can override, the task waits in the triggerer. Otherwise it parks as a question to the
    window approvers. Their answer is stored where only workers write, for this run, this release and until
    the opening that the question named.

    :raises TaskDeferred: the window is closed
    :raises TaskAwaitingInput: the window is closed, and a person can override that
    :raises WindowClosedError: it is closed, and the release does not wait, or would wait for ever
    """
    environment, now = attempt.settings, datetime.now(timezone.utc)
    closed = attempt.service.closed(environment, now)
    if closed is None:
        return None
    message = f"{attempt.environment} cannot be deployed to now: {closed.reason}"
    if override := _window_override(attempt, closed, now):
        by = f"window override by {override.by}: {override.reason or 'no reason given'}"
        attempt.log.warning("%s. Deploying all the same: %s", message, by)
        return by
    opens_at = closed.opens_at.isoformat() if closed.opens_at else None
    attempt.context["ti"].xcom_push(key=CLOSED, value={"reason": closed.reason, "opens_at": opens_at})
    if environment.when_closed == "fail":
        when = f"it opens at {opens_at}" if opens_at else "no opening is in sight"
        raise WindowClosedError(f"{message}; {when}. Clear this task when it is open.")
    if environment.window_approvers:
        _ask_to_override(attempt, closed, now)
    if closed.opens_at is None:
        raise WindowClosedError(f"{message}; no opening is in sight. Change the windows and clear this.")
    attempt.log.info(
        "%s. Waiting until it opens at %s; clear this task to check again earlier.", message, opens_at
    )
    _wait_until(closed.opens_at, now)


# In this order. A gate raises, or returns what the record says about how the release was let in.
GATES: tuple[Callable[[Attempt], str | None], ...] = (
    newest,
    not_aborted,
    not_rolled_back,
    not_held,
    approved,
    window_open,
)


def pass_gates(attempt: Attempt) -> str | None:
    """
    Return how the release was let in, as the record keeps it; raise what the first refusing gate raises.

    :raises AirflowFailException: it is not approved, or no window ever opens
    """
    try:
        notes = [gate(attempt) for gate in GATES]
    except (ApprovalError, WindowClosedError) as error:
        raise AirflowFailException(str(error)) from error
    return "; ".join(filter(None, notes)) or None


def keep_window_answer(
    context: Context,
    task_id: str,
    service: Service,
    environment: str,
    event: dict[str, Any],
    digest: str,
    manifest: str | None,
    until: str | None,
    closed: str | None,
    log: Logger,
) -> None:
    """
    Store the answer to the question of :func:`window_open`, if it counts.

    :param event: of Airflow, with the answer or an error
    :param digest: the release that the question was about
    :param manifest: digest of its manifest
    :param until: when the environment opens by itself, in ISO format
    :param closed: why it was closed, as the question said
    """
    from airflow_cd.model.approval import ApprovalOutcome, Decision, Responder
    from airflow_cd.model.decision_requests import DEPLOY_NOW
    from airflow_cd.releases.decisions import keep_decision
    from airflow_cd.releases.questions import reason_in

    by = Responder.of(event)
    is_override = event.get("chosen_options") == [DEPLOY_NOW]
    if is_override and by is not None and by.is_among(service.environment(environment).window_approvers):
        decision = Decision(
            outcome=ApprovalOutcome.APPROVED,
            digest=digest,
            manifest=manifest,
            by=by.shown,
            by_id=by.id,
            at=event.get("responded_at"),
            reason=reason_in(event) or None,
            until=datetime.fromisoformat(until) if until else None,
            closed=closed,
        )
        keep_decision(context, service, environment, task_id, decision)
    elif "error" not in event:
        why = "is not among the window_approvers" if is_override else "answered another question"
        log.warning("This answer does not count: %r %s.", by.shown if by else None, why)


def _window_override(attempt: Attempt, closed: Closed, now: datetime) -> Decision | None:
    """
    Return the answer that lets this release in now, if there is one.

    It is about the reason that the question named: who overrode a quiet evening did not override the freeze
    that was declared after that.
    """
    from airflow_cd.model.approval import Responder
    from airflow_cd.releases.decisions import kept_decision

    approvers = attempt.settings.window_approvers
    if not approvers:
        return None
    kept = kept_decision(attempt.context, attempt.service, attempt.environment, attempt.task_id)
    if kept is None or kept.by is None or kept.manifest != attempt.manifest:
        return None
    if not Responder(kept.by_id or kept.by, kept.by).is_among(approvers):
        return None
    if kept.closed is not None and kept.closed != closed.reason:
        return None
    return kept if kept.until is None or now < kept.until else None


def _ask_to_override(attempt: Attempt, closed: Closed, now: datetime) -> None:
    """Park until a person answers or the environment opens; return when the question cannot be put."""
    from airflow_cd.links.release import approval_url
    from airflow_cd.model import decision_requests
    from airflow_cd.releases.questions import put_question, reason_form

    ti, environment, release = attempt.context["ti"], attempt.settings, attempt.release
    users = environment.window_approvers
    about = decision_requests.QuestionSubject.of(release, attempt.manifest)
    later = environment.approval.approvers if environment.strategy and environment.approval else ()
    shown = put_question(
        ti.id,
        subject=decision_requests.window_subject(release, attempt.environment),
        body=decision_requests.window_body(release, attempt.environment, closed),
        options=[decision_requests.DEPLOY_NOW, *_later_options(environment)],
        params={"reason": reason_form().get_param("reason").serialize()},
        assigned=sorted({*users, *later}),
        about=about,
    )
    if shown != about:
        # Airflow keeps one question for the whole run, and this run's release is another one by now.
        attempt.log.warning(
            "Nobody can be asked to override: Airflow still shows another release's question."
        )
        return
    attempt.log.info(
        "%s cannot be deployed to now: %s; %s. Waiting for that, or for an override by %s: %s",
        *(attempt.environment, closed.reason, decision_requests.opening(closed), ", ".join(users)),
        approval_url(ti.dag_id, ti.run_id, ti.task_id),
    )
    opens_at = closed.opens_at
    raise TaskAwaitingInput(
        method_name="window_answered",
        timeout=max(opens_at - now, _shortest_wait()) if opens_at else None,
        kwargs={
            "digest": release.digest,
            "manifest": attempt.manifest,
            "until": opens_at.isoformat() if opens_at else None,
            "closed": closed.reason,
        },
    )


def _wait_until(opens_at: datetime, now: datetime) -> NoReturn:
    from airflow.providers.standard.triggers.temporal import DateTimeTrigger

    moment = max(opens_at, now + _shortest_wait())
    raise TaskDeferred(trigger=DateTimeTrigger(moment=moment), method_name="window_opened")


def _later_options(environment: Environment) -> list[str]:
    """Airflow keeps a task's first question: the answers of a later rollout question must be among them."""
    from airflow_cd.model.decision_requests import ABORT, GO_ON

    return [GO_ON, ABORT] if environment.strategy is not None else []


def _shortest_wait() -> timedelta:
    from airflow_cd.triggers.defer_delay import defer_delay_seconds

    return timedelta(seconds=defer_delay_seconds())
