"""Waits for a person's decision, on no slot of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput
from airflow.sdk.execution_time.hitl import upsert_hitl_detail

from airflow_cd.exceptions import SourceError
from airflow_cd.hooks.releases import load_release, superseded_by
from airflow_cd.links.release import ApprovalLink, approval_url
from airflow_cd.model.approval import Approval, Decision, Outcome
from airflow_cd.model.text import printable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service

APPROVE, REJECT = "Approve", "Reject"
DECISION = "decision"
_LONGEST_REASON = 500


class ApprovalSensor(HITLOperator):
    """
    Parks in Airflow's ``awaiting_input`` state until somebody decides about this run's release.

    A decision comes in three ways: an answer in Required Actions, marking the task as success or failed,
    or ``airflow cd approve``. An approval is the task's XCom
    (:class:`~airflow_cd.model.approval.Decision` as JSON), bound to the digest; ``deploy`` checks it. The
    other outcomes are left under the XCom key ``decision``: *rejected* and *expired* fail the task,
    *superseded* skips it.

    An answer by somebody who may not decide is logged, and the question is asked again.

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
        self.params = _form()
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
        release, running = self._candidate(context)
        if running is not None and running.digest == release.digest:
            self.log.info("%s runs %s already: nothing to approve", self.environment, release.version)
            return _json(Decision(outcome=Outcome.NOT_NEEDED, digest=release.digest))
        self._describe(release, running)
        self._park(context, release, asked_at=datetime.now(timezone.utc))
        return {}

    def execute_complete(
        self, context: Context, event: dict[str, Any], asked_at: str | None = None
    ) -> dict[str, Any]:
        """
        Take the answer, or the news that none came in time.

        :raises AirflowFailException: rejected or expired
        :raises AirflowSkipException: superseded while it waited
        """
        release, running = self._candidate(context)
        if "error" in event:
            self._close_without_answer(context, release, event)
        decision = self._decision(event, release)
        # Authors may not let their own work in, but they may take it back.
        author = release.revision.author_email if decision.outcome is Outcome.APPROVED else None
        if refusal := self.policy.may_decide(decision.by or "", author):
            self.log.warning("This answer does not count: %s. Asking again.", refusal)
            self._describe(release, running)
            self._park(context, release, asked_at=_time(asked_at))
        self.log.info(
            "%s by %s: %s", decision.outcome.value, decision.by, decision.reason or "no reason given"
        )
        if decision.outcome is Outcome.REJECTED:
            context["ti"].xcom_push(key=DECISION, value=_json(decision))
            raise AirflowFailException(f"rejected by {decision.by}: {decision.reason or 'no reason given'}")
        return _json(decision)

    def _candidate(self, context: Context) -> tuple[Release, Release | None]:
        """Return the release in question and what runs now; skip when that is newer."""
        from airflow_cd.hooks.adapters import open_target

        release, _ = load_release(context, self.release_task_id)
        record = open_target(self.service, self.service.environment(self.environment)).record()
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
            decision = Decision(outcome=Outcome.SUPERSEDED, digest=release.digest, reason=reason)
            context["ti"].xcom_push(key=DECISION, value=_json(decision))
            raise AirflowSkipException(reason)
        return release, record.current.release if record.current else None

    def _describe(self, release: Release, running: Release | None) -> None:
        from airflow_cd.model import approval_request
        from airflow_cd.sources.web import compare_url

        diff = (
            compare_url(self.service.source.repository, running.revision.sha, release.revision.sha)
            if running
            else None
        )
        self.subject = approval_request.subject(release, self.environment)
        self.body = approval_request.body(release, self.environment, running, diff)

    def _park(self, context: Context, release: Release, *, asked_at: datetime) -> None:
        """
        Write the question and give up the worker slot.

        The base class's ``execute`` is not used: it would start the time until expiry anew every time the
        question is asked again.
        """
        ti = context["ti"]
        expires = self.policy.expires_after
        # A clock that was set back meanwhile must not give more time than was meant.
        left = None if expires is None else min(asked_at + expires - datetime.now(timezone.utc), expires)
        upsert_hitl_detail(
            ti_id=ti.id,
            options=self.options,
            subject=self.subject,
            body=self.body,
            params=self.serialized_params,
            assigned_users=self._assigned(release),
        )
        self.log.info("Waiting for a decision: %s", approval_url(ti.dag_id, ti.run_id, ti.task_id))
        raise TaskAwaitingInput(
            method_name="execute_complete", timeout=left, kwargs={"asked_at": asked_at.isoformat()}
        )

    def _assigned(self, release: Release) -> list[Any]:
        """Return the approvers who may decide about this commit; Airflow refuses everybody else's answer."""
        author = release.revision.author_email
        users = [user for user in self.policy.approvers if self.policy.may_decide(user, author) is None]
        if self.policy.approvers and not users:
            raise AirflowFailException(
                f"nobody may approve this commit: its author ({author or 'it names none'}) is the only "
                "approver listed or cannot be told, and self_approval is false. List another approver, commit "
                "under a name, or set self_approval: true."
            )
        return [{"id": user, "name": user} for user in users]

    def _decision(self, event: dict[str, Any], release: Release) -> Decision:
        chosen = event["chosen_options"]
        user = event.get("responded_by_user") or {}
        reason = (event.get("params_input") or {}).get("reason")
        return Decision(
            outcome=Outcome.APPROVED if chosen == [APPROVE] else Outcome.REJECTED,
            digest=release.digest,
            by=user.get("id"),
            at=event.get("responded_at"),
            reason=printable(str(reason), _LONGEST_REASON) if reason else None,
        )

    def _close_without_answer(self, context: Context, release: Release, event: dict[str, Any]) -> None:
        if event.get("error_type") != "timeout":
            self.process_trigger_event_error(event)
        expires = self.policy.expires_after
        reason = f"expired: nobody decided within {expires}"
        decision = Decision(outcome=Outcome.EXPIRED, digest=release.digest, reason=reason)
        context["ti"].xcom_push(key=DECISION, value=_json(decision))
        raise AirflowFailException(reason)


@cache
def _form() -> ParamsDict:
    """One form serves all sensors: making params is slow, and a thousand services are parsed at once."""
    return ParamsDict(
        {"reason": Param("", type=["string", "null"], title="Reason", maxLength=500, source="task")}
    )


def _json(decision: Decision) -> dict[str, Any]:
    return decision.model_dump(mode="json")


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else datetime.now(timezone.utc)
