"""Waits for a person's approval without occupying a slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput

from airflow_cd.exceptions import SourceError
from airflow_cd.links.release import ApprovalLink, approval_url
from airflow_cd.model.approval import Approval, ApprovalOutcome, Decision, Responder
from airflow_cd.model.base import format_duration
from airflow_cd.model.release import ReleaseName
from airflow_cd.model.target_settings import Capability
from airflow_cd.releases.decisions import keep_decision
from airflow_cd.releases.notifications import notify
from airflow_cd.releases.people import refusal_of_program
from airflow_cd.releases.questions import put_question, reason_form, reason_in
from airflow_cd.releases.run import load_release, superseded_by
from airflow_cd.releases.verification import require_signatures

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.record import Record

APPROVE, REJECT = "Approve", "Reject"
# What Airflow enters as the answer when nobody gave one in time. It is not among the buttons.
EXPIRED = "Expired"


def wait_for_answer(asked_at: datetime, policy: Approval, about: Mapping[str, str]) -> NoReturn:
    """
    Give up the worker slot until a person answers, or the time for an answer is over.

    :param asked_at: when the question was asked first
    :param about: arguments of ``execute_complete`` that say what the question is about
    :raises TaskAwaitingInput: always; the task resumes in ``execute_complete``
    """
    expires = policy.expires_after
    raise TaskAwaitingInput(
        method_name="execute_complete",
        # A clock that was set back meanwhile must not give more time than was meant.
        timeout=expires and min(asked_at + expires - datetime.now(timezone.utc), expires),
        kwargs={"asked_at": asked_at.isoformat(), **about},
    )


def decision_of(
    task: HITLOperator, event: dict[str, Any], policy: Approval, digest: str, manifest: str
) -> Decision:
    """
    Return what was decided.

    :param event: with which Airflow resumes the task
    :param digest: the release, or the train's manifest, that the question was about
    :param manifest: digest of the release manifest, or of the train's
    :raises Exception: the event reports an error other than a timeout
    """
    if "error" in event and event.get("error_type") != "timeout":
        task.process_trigger_event_error(event)
    if "error" in event or event["chosen_options"] == [EXPIRED]:
        waited = format_duration(policy.expires_after or timedelta())
        why = f"nobody decided within {waited}"
        return Decision(outcome=ApprovalOutcome.EXPIRED, digest=digest, manifest=manifest, reason=why)
    approved, user = event["chosen_options"] == [APPROVE], Responder.of(event)
    return Decision(
        outcome=ApprovalOutcome.APPROVED if approved else ApprovalOutcome.REJECTED,
        digest=digest,
        manifest=manifest,
        by=user.shown if user else None,
        by_id=user.id if user else None,
        at=event.get("responded_at"),
        reason=reason_in(event),
    )


def refusal_of(decision: Decision, policy: Approval, authors: tuple[str, ...]) -> str | None:
    """
    Return why this answer does not count, or ``None``.

    :param authors: of the commits that would be let in
    """
    if decision.outcome is ApprovalOutcome.EXPIRED:
        return None
    user = Responder(decision.by_id or decision.by or "", decision.by or "")
    if decision.by and (refusal := refusal_of_program(user, policy)):
        return refusal
    # Authors cannot let their own work in, but they may take it back.
    is_approved = decision.outcome is ApprovalOutcome.APPROVED
    return policy.may_decide(user, authors if is_approved else ())


def described(decision: Decision) -> str:
    """Return the decision for a log line."""
    by = f" by {decision.by}" if decision.by else ""
    return f"{decision.outcome.value}{by}: {decision.reason or 'no reason given'}"


DECISION = "decision"


class _Candidate(NamedTuple):
    """
    What is to be decided about.

    :param manifest: digest of the release's manifest
    :param record: what the environment says now
    """

    release: Release
    manifest: str
    record: Record

    @property
    def running(self) -> Release | None:
        return self.record.current.release if self.record.current else None


class ApprovalSensor(HITLOperator):
    """
    Parks in Airflow's ``awaiting_input`` state until a person decides about this run's release.

    A decision comes in three ways: an answer in Required Actions, marking the task as success or failed,
    or ``airflow cd approve``. What was decided is kept in the artifact store, bound to the digest that was
    shown, and ``deploy`` checks it there; a task that is marked leaves nothing. To be read by people it is
    also the task's XCom (:class:`~airflow_cd.model.approval.Decision` as JSON) when the release may go on,
    and else under the XCom key ``decision``: *rejected* and *expired* fail the task, *superseded* skips it.

    An answer by a user who cannot decide is logged, and the question is asked again.

    :param service: what is to be approved
    :param environment: name of the environment whose policy holds
    :param release_task_id: the task whose XCom is the release
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ApprovalLink(),)
    ui_color = "#fff3cd"

    def __init__(
        self, *, service: Service, environment: str, release_task_id: str = "package", **kwargs: Any
    ) -> None:
        super().__init__(
            subject=f"Deploy {service.name} to {environment}?",
            options=[APPROVE, REJECT],
            **kwargs,
        )
        # The form has only its own field, not what else the DAG's runs are asked for.
        self.params = reason_form()
        self.service = service
        self.environment = environment
        self.release_task_id = release_task_id

    @property
    def approval_task_id(self) -> str:
        """Return this task's id, for the link."""
        return self.task_id

    @property
    def policy(self) -> Approval:
        """Return the environment's policy, or the default one."""
        return self.service.environment(self.environment).approval or Approval()

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Ask, unless there is nothing to decide.

        :raises AirflowSkipException: a newer release runs already
        :raises AirflowFailException: the policy leaves nobody who may approve
        """
        candidate = self._candidate(context)
        release, running = candidate.release, candidate.running
        if running is not None and running.digest == release.digest:
            self.log.info("%s runs %s already: nothing to approve", self.environment, release.version)
            return self._keep(
                context,
                Decision(
                    outcome=ApprovalOutcome.NOT_NEEDED, digest=release.digest, manifest=candidate.manifest
                ),
            )
        self._ask(context, candidate, asked_at=datetime.now(timezone.utc))
        return {}

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any],
        asked_at: str | None = None,
        digest: str | None = None,
        manifest: str | None = None,
    ) -> dict[str, Any]:
        """
        Take the answer, or the news that none came in time.

        :param asked_at: when the question was asked first, in ISO format
        :param digest: the release the question was about
        :param manifest: digest of its manifest; a question of an earlier version does not have it
        :raises AirflowFailException: rejected or expired, or the run's release is another one by now
        :raises AirflowSkipException: superseded while it waited
        """
        candidate = self._candidate(context)
        release = candidate.release
        if (digest, manifest) != (release.digest, candidate.manifest):
            self._refuse_to_ask(release, candidate.manifest, manifest)
        decision = decision_of(self, event, self.policy, release.digest, candidate.manifest)
        if refusal := refusal_of(decision, self.policy, self._authors(candidate)):
            self.log.warning("This answer does not count: %s. Asking again.", refusal)
            self._ask(context, candidate, asked_at=_time(asked_at))
        kept = self._keep(context, decision)
        self.log.info("%s", described(decision))
        if decision.outcome is not ApprovalOutcome.APPROVED:
            raise AirflowFailException(described(decision))
        return kept

    def _candidate(self, context: Context) -> _Candidate:
        """
        Return the release in question.

        :raises AirflowSkipException: what runs is newer
        :raises AirflowFailException: the release is not signed as the environment demands
        """
        from airflow_cd.releases.adapters import open_target

        release, ref = load_release(context, self.service, self.release_task_id)
        environment = self.service.environment(self.environment)
        if environment.verify is not None:
            require_signatures(self.service, environment, ref)
        record = open_target(self.service, environment).record()
        try:
            newer = superseded_by(self.service, release, record)
        except SourceError as error:
            # A person's answer must not be lost because the git host is down; deploy asks it again.
            self.log.warning("Cannot tell whether this release is superseded: %s", error)
            newer = None
        if newer is not None:
            reason = (
                f"superseded: {self.environment} runs {newer.version}, which is newer than {release.version}"
            )
            decision = Decision(
                outcome=ApprovalOutcome.SUPERSEDED,
                digest=release.digest,
                manifest=ref.manifest,
                reason=reason,
            )
            self._keep(context, decision)
            raise AirflowSkipException(reason)
        return _Candidate(release, ref.manifest, record)

    def _ask(self, context: Context, candidate: _Candidate, *, asked_at: datetime) -> NoReturn:
        """
        Write the question and give up the worker slot.

        The base class's ``execute`` is not used: it would start the time until expiry again every time the
        question is asked again.
        """
        from airflow_cd.model import decision_requests
        from airflow_cd.sources.web import compare_url

        ti = context["ti"]
        release, manifest, running = candidate.release, candidate.manifest, candidate.running
        diff = (
            compare_url(self.service.source.repository, running.revision.sha, release.revision.sha)
            if running
            else None
        )
        preview = self._preview(release)
        about = decision_requests.QuestionSubject.of(release, manifest)
        keep_decision(context, self.service, self.environment, self.task_id, None)
        assigned = self._assigned(candidate)
        shown = put_question(
            ti.id,
            subject=decision_requests.approval_subject(release, self.environment),
            body=decision_requests.approval_body(release, self.environment, running, diff, preview),
            options=self.options,
            params=self.serialized_params,
            assigned=assigned,
            about=about,
            default=EXPIRED if self.policy.expires_after else None,
        )
        if shown != about:
            self._refuse_to_ask(release, manifest, shown.manifest if shown else None)
        url = approval_url(ti.dag_id, ti.run_id, ti.task_id)
        self.log.info("Waiting for a decision: %s", url)
        facts = {
            "release": ReleaseName.of(release).model_dump(mode="json"),
            "replaced": ReleaseName.of(running).model_dump(mode="json") if running else None,
            "approvers": assigned,
            "url": url,
        }
        notify(context, self.service, self.environment, "approval_needed", release.digest, facts)
        wait_for_answer(asked_at, self.policy, {"digest": release.digest, "manifest": manifest})

    def _preview(self, release: Release) -> str | None:
        """Return what deploying would change, where the target can tell."""
        from airflow_cd.releases.adapters import open_target
        from airflow_cd.releases.questions import preview_of

        environment = self.service.environment(self.environment)
        if not environment.target.can(Capability.PREVIEW):
            return None
        return preview_of(self.service, environment, open_target(self.service, environment), release)

    def _refuse_to_ask(self, release: Release, manifest: str, about: str | None) -> NoReturn:
        """Fail, so that nobody approves one release while reading about another."""
        raise AirflowFailException(
            f"this run's release is {release.digest} (manifest {manifest}) by now, but Airflow still shows "
            f"the question about {about or 'another one'}, and keeps it for the whole run. Trigger the DAG "
            f"with revision {release.revision.sha}: that run asks about the new release."
        )

    def _authors(self, candidate: _Candidate) -> tuple[str, ...]:
        from airflow_cd.releases.authors import authors_known

        return authors_known(self.service, candidate.release, candidate.record, self.policy)

    def _assigned(self, candidate: _Candidate) -> list[str]:
        """Return the approvers who may decide about this release; Airflow refuses everybody else's answer."""
        users = self.policy.who_may_decide(self._authors(candidate))
        if self.policy.approvers and not users:
            raise AirflowFailException(
                f"nobody may approve this release: all approvers ({', '.join(self.policy.approvers)}) wrote "
                "a part of it, or a commit names no author, and self_approval is false. List another "
                "approver, commit under a name, or set self_approval: true."
            )
        return users

    def _keep(self, context: Context, decision: Decision) -> dict[str, Any]:
        """Keep the decision for ``deploy``, and return it as an XCom; what ends the run is pushed."""
        keep_decision(context, self.service, self.environment, self.task_id, decision)
        kept = decision.model_dump(mode="json")
        if decision.outcome not in (ApprovalOutcome.APPROVED, ApprovalOutcome.NOT_NEEDED):
            context["ti"].xcom_push(key=DECISION, value=kept)
        return kept


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.now(timezone.utc)
