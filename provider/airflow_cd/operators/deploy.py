"""Deploys a release to an environment after it passed every gate."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_cd.exceptions import (
    AccessDeniedError,
    ApprovalError,
    ArtifactCorruptError,
    ArtifactNotFoundError,
    FieldConflictError,
    ManifestError,
    NotReadyError,
    SigningKeyError,
    VerificationError,
    WindowClosedError,
)
from airflow_cd.links.release import ApprovalLink, ServiceLink
from airflow_cd.operators.retry_on_conflict import RetryOnConflictMixin
from airflow_cd.operators.rollouts import RolloutsMixin
from airflow_cd.releases.history import change_of, changes_alias, emit
from airflow_cd.releases.notifications import notify_of_change
from airflow_cd.releases.run import actor_of, load_ref, read_release, superseded_by

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_cd.model.approval import Decision
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release, ReleaseRef
    from airflow_cd.model.service import Service
    from airflow_cd.model.window import Closed
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import DeployOutcome, Record

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
        :raises TaskAwaitingInput: it is closed, and a person may override that
        :raises WindowClosedError: it is closed, and the release is not to wait, or would do so for ever
        """
        environment = self.service.environment(self.environment)
        now = datetime.now(timezone.utc)
        closed = self.service.closed(environment, now)
        if closed is None:
            return None
        told = f"{self.environment} cannot be deployed to now: {closed.reason}"
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
        """Decide again, from the beginning."""
        return self.execute(context)

    def window_answered(
        self, context: Context, event: dict[str, Any], digest: str, until: str | None = None
    ) -> Any:
        """
        Keep the answer, if there is one, and decide again.

        :param digest: the release the question was about
        :param until: when the environment opens by itself, in ISO format
        """
        from airflow_cd.model.approval import ApprovalOutcome, Decision
        from airflow_cd.model.decision_requests import DEPLOY_NOW
        from airflow_cd.releases.decisions import keep_decision
        from airflow_cd.releases.questions import reason_in

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
        from airflow_cd.releases.decisions import kept_decision

        if not environment.window_approvers:
            return None
        kept = kept_decision(context, self.service, self.environment, self.task_id)
        if kept is None or kept.by not in environment.window_approvers or kept.digest != release.digest:
            return None
        return kept if kept.until is None or now < kept.until else None

    def _ask_to_override(
        self, context: Context, environment: Environment, release: Release, closed: Closed, now: datetime
    ) -> None:
        """Park until a person answers or the environment opens; return when the question cannot be put."""
        from airflow.sdk.exceptions import TaskAwaitingInput

        from airflow_cd.links.release import approval_url
        from airflow_cd.model import decision_requests
        from airflow_cd.model.decision_requests import digest_in
        from airflow_cd.releases.questions import put_question, reason_form

        ti, users = context["ti"], environment.window_approvers
        later = environment.approval.approvers if environment.strategy and environment.approval else ()
        shown = put_question(
            ti.id,
            subject=decision_requests.window_subject(release, self.environment),
            body=decision_requests.window_body(release, self.environment, closed),
            options=[decision_requests.DEPLOY_NOW, *_later_options(environment)],
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
            "%s cannot be deployed to now: %s; %s. Waiting for that, or for an override by %s: %s",
            *(self.environment, closed.reason, decision_requests.opening(closed), ", ".join(users)),
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
    """Airflow keeps a task's first question: what a rollout asks later must be among its answers."""
    from airflow_cd.model.decision_requests import ABORT, GO_ON

    return [GO_ON, ABORT] if environment.strategy is not None else []


def _settling() -> timedelta:
    from airflow_cd.triggers.defer_delay import defer_delay_seconds

    return timedelta(seconds=defer_delay_seconds())


class GatesMixin(WindowsMixin):
    """
    Lets an operator decide whether a release may be deployed.

    Each gate is asked again at every turn: what was true before a wait might not be true after it.
    """

    log: Any
    service: Service
    environment: str
    approval_task_id: str | None

    def _pass_gates(self, context: Context, release: Release, record: Record) -> str | None:
        """Return how the deployment was allowed; raise when it is not."""
        if newer := superseded_by(self.service, release, record, on_its_way=True):
            raise AirflowSkipException(
                f"superseded: {self.environment} runs {newer.version} ({newer.revision.short}), "
                f"which is newer than {release.version} ({release.revision.short})"
            )
        self._refuse_aborted(context, release, record)
        self._refuse_rolled_back(context, release, record)
        self._respect_hold(context, record)
        try:
            allowed = self._check_approval(context, release)
            overridden = self._pass_windows(context, release)
            return "; ".join(filter(None, (allowed, overridden))) or None
        except (ApprovalError, WindowClosedError) as error:
            raise AirflowFailException(str(error)) from error

    def _refuse_rolled_back(self, context: Context, release: Release, record: Record) -> None:
        """A failed candidate is not tried again by itself; a person who triggers the DAG may."""
        rolled_back = record.current is not None and record.current.rolled_back_from == release.digest
        if rolled_back and context["dag_run"].run_type != "manual":
            raise AirflowSkipException(
                f"{release.version} was rolled back in {self.environment}; "
                "trigger the DAG by hand to try it again"
            )

    def _refuse_aborted(self, context: Context, release: Release, record: Record) -> None:
        """What was aborted is not tried again by itself, neither by this task's retry nor by another run."""
        aborted = record.aborted
        if aborted is None or aborted.release.digest != release.digest:
            return
        if aborted.actor == actor_of(context):
            raise AirflowFailException(f"aborted: {aborted.reason}")
        if context["dag_run"].run_type != "manual":
            raise AirflowSkipException(
                f"{release.version} was aborted in {self.environment} ({aborted.reason}); "
                "trigger the DAG by hand to try it again"
            )

    def _respect_hold(self, context: Context, record: Record) -> None:
        """After a person went back to an older release, only a person's later decision goes on."""
        hold = record.hold
        if hold is None or context["dag_run"].run_type == "manual":
            return
        decision = self._decision(context)
        if decision is not None and decision.at is not None and decision.at > hold.since:
            return
        raise AirflowSkipException(
            f"{self.environment} is held since {hold.by} rolled it back at "
            f"{hold.since.isoformat(timespec='seconds')} ({hold.reason or 'no reason given'}); "
            "trigger the DAG by hand to deploy and lift the hold"
        )

    def _check_approval(self, context: Context, release: Release) -> str | None:
        from airflow_cd.model.approval import Approval

        if self.approval_task_id is None:
            return None
        policy = self.service.environment(self.environment).approval or Approval()
        allowed = policy.check(self._decision(context), release.digest, release.authors)
        self.log.info("Approval: %s", allowed)
        return allowed

    def _decision(self, context: Context) -> Decision | None:
        """Return what a person decided in this run, if anybody did."""
        from airflow_cd.releases.decisions import kept_decision

        if self.approval_task_id is None:
            return None
        return kept_decision(context, self.service, self.environment, self.approval_task_id)


class DeployOperator(RolloutsMixin, RetryOnConflictMixin, GatesMixin, BaseOperator):
    """
    Deploys the run's release, if it may be deployed.

    In this order: where the environment demands signatures, a release that is not the one that was signed
    fails the task before the target is asked anything; the release that runs already is left alone; an older
    one than what runs is skipped as superseded; one that was rolled back is not deployed again by itself, nor
    is any while the environment is held; a missing or foreign approval fails the task; a closed window
    or a freeze holds it, on no slot, and when it opens, or is overridden, everything is decided again (or it
    fails the task, where the environment says so); the target then compares and sets, so
    that of two deployments based on the same record one wins, and the other waits, in the triggerer, until
    it can decide again.

    Where the target takes its time (a canary on Kubernetes), the rollout goes on in the triggerer, and the
    task ends when it does: with what was measured in its XCom, or failed when the release was aborted.

    The XCom is a mapping with ``digest``, ``version``, ``generation``, ``url``, ``changed`` and
    ``verified_by`` (id of the key whose signature let the release in, ``None`` where none is demanded).

    :param service: what to deploy
    :param environment: name of the environment
    :param release_task_id: the task whose XCom is the release
    :param approval_task_id: the approval task; ``None`` where no approval is asked for
    """

    template_fields: Sequence[str] = ()
    operator_extra_links: Sequence[BaseOperatorLink] = (ServiceLink(), ApprovalLink())
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        service: Service,
        environment: str,
        release_task_id: str = "package",
        approval_task_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=[changes_alias(service.name, environment)], **kwargs)
        self.service = service
        self.environment = environment
        self.release_task_id = release_task_id
        self.approval_task_id = approval_task_id
        if approval_task_id is None:
            # Airflow shows a link that leads nowhere, and stores it, which each takes a request.
            self.operator_extra_links = (ServiceLink(),)

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Deploy the release.

        :raises TaskDeferred: another run deploys here, or a window is closed; decides again later
        :raises AirflowSkipException: superseded
        :raises AirflowFailException: not signed as demanded, changed in the store, not approved, no window
            ever opens, or the release did not become ready
        """
        return self.in_turn(context)

    def take_turn(self, context: Context) -> dict[str, Any]:
        """Check every gate and deploy. :raises DeployConflictError: another run deploys here"""
        ref = load_ref(context, self.release_task_id)
        release, verified_by = self._verified(ref)
        target = self._open_target()
        record = target.record()
        running = record.current.release if record.current else None
        self.log.info(
            "%s runs %s", self.environment, f"{running.version} {running.digest}" if running else "nothing"
        )
        approval = None
        if (running is None or running.digest != release.digest) and not self._is_ours(
            context, release, record
        ):
            approval = self._pass_gates(context, release, record)
        done = self._deploy(target, release, ref.store, record, context, approval, verified_by)
        return self._done(
            context, target, done, verified_by=verified_by, changed=done.generation != record.generation
        )

    def _is_ours(self, context: Context, release: Release, record: Record) -> bool:
        """Return whether an earlier try of this task let the release in: it is on its way."""
        rollout = record.rollout
        return (
            rollout is not None
            and rollout.candidate.release.digest == release.digest
            and rollout.candidate.actor == actor_of(context)
        )

    def _done(
        self, context: Context, target: Target, record: Record, *, verified_by: str | None, changed: bool
    ) -> dict[str, Any]:
        """Tell of what runs now."""
        assert record.current is not None
        release, measured = record.current.release, record.current.measurements
        self.service_url = target.url()
        change = change_of(context, self.service.name, self.environment, record)
        emit(context, change)
        notify_of_change(context, self.service, change, self.service_url)
        self.log.info("%s runs %s %s", self.environment, release.version, "now" if changed else "already")
        told = {"measurements": [one.model_dump(mode="json") for one in measured]} if measured else {}
        return {
            "digest": release.digest,
            "version": release.version,
            "generation": record.generation,
            "url": self.service_url,
            "changed": changed,
            "verified_by": verified_by,
            **told,
        }

    def _over(
        self, context: Context, target: ProgressiveTarget, record: Record, outcome: DeployOutcome, **more: Any
    ) -> dict[str, Any]:
        """End with the rollout: fail when it was aborted, skip when another release took its place."""
        if outcome.state == "promoted":
            return self._done(context, target, record, verified_by=more["verified_by"], changed=True)
        if outcome.state == "aborted":
            runs = record.current.release.version if record.current else "nothing"
            self._tell_of_abort(context, record)
            raise AirflowFailException(f"aborted: {outcome.reason}. {self.environment} runs {runs}.")
        raise AirflowSkipException(f"superseded: {outcome.reason}")

    def _verified(self, ref: ReleaseRef) -> tuple[Release, str | None]:
        """Return the release, and the id of the key whose signature lets it in here."""
        from airflow_cd.releases.verification import verify_release

        try:
            release = read_release(ref)
            key_id = verify_release(self.service, self.service.environment(self.environment), ref, release)
        except (ArtifactCorruptError, ArtifactNotFoundError, SigningKeyError, VerificationError) as error:
            raise AirflowFailException(f"{self.environment} was not touched: {error}") from error
        if key_id is not None:
            self.log.info("Manifest and provenance are signed by key %s", key_id)
        return release, key_id

    def _deploy(
        self,
        target: Target,
        release: Release,
        store_url: str,
        record: Record,
        context: Context,
        approval: str | None,
        verified_by: str | None,
    ) -> Record:
        from airflow_cd.releases.adapters import open_store
        from airflow_cd.releases.verification import explain_archive
        from airflow_cd.targets.base import ProgressiveTarget

        store = open_store(store_url)
        decided: Any = {"expected": record.generation, "actor": actor_of(context), "approval": approval}
        try:
            if not isinstance(target, ProgressiveTarget):
                return target.deploy(release, store, **decided)
            over = record.rollout.token if record.rollout else None
            begun = target.begin(release, store, over=over, analyses=self.service.analyses, **decided)
            return self._seen_through(begun, context, target, verified_by)
        except ArtifactCorruptError as error:
            why = "" if release.image else f" {explain_archive(store, release)}"
            raise AirflowFailException(f"{error}{why}") from error
        except (AccessDeniedError, FieldConflictError, ManifestError, NotReadyError) as error:
            raise AirflowFailException(str(error)) from error

    def _seen_through(
        self, begun: Record, context: Context, target: ProgressiveTarget, verified_by: str | None
    ) -> Record:
        """Return the record when the rollout went well while the worker looked; raise when it did not."""
        from airflow_cd.targets.record import outcome_of

        if begun.rollout is None:
            return begun
        token = begun.rollout.token
        record = self._see_through(begun, target, verified_by=verified_by)
        if (outcome := outcome_of(record, token)).state != "promoted":
            self._over(context, target, record, outcome)
        return record
