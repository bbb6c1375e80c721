"""Decides whether a release train departs: automatically, or after approval."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException

from airflow_cd.links.release import ApprovalLink, approval_url
from airflow_cd.model.approval import Approval, ApprovalOutcome
from airflow_cd.model.train import BOARDING
from airflow_cd.releases.decisions import keep_decision
from airflow_cd.releases.history import departures_alias, emit_departure
from airflow_cd.releases.notifications import notify_of_train
from airflow_cd.releases.questions import put_question, reason_form
from airflow_cd.releases.verification import require_signatures
from airflow_cd.sensors.approval import (
    APPROVE,
    EXPIRED,
    REJECT,
    decision_of,
    described,
    refusal_of,
    wait_for_answer,
)
from airflow_cd.trains.select import ABSENT

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.model.train import Train, TrainManifest
    from airflow_cd.targets.record import Record


class DepartureSensor(HITLOperator):
    """
    Writes the manifest, also as the run's note, and waits for one approval of the whole train, on no slot
    of any kind.

    The decision is kept for every passenger, bound to its manifest, where each one's ``deploy`` looks for it.
    An approval is of exactly the releases that were shown. A train with nobody on board asks nobody.

    The XCom is a mapping with ``manifest`` (its digest), ``on_board`` (service -> version) and ``absent``
    (service -> why).

    :param train: the train
    :param members: its services
    :param policy: who may let it depart; ``None`` asks nobody
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ApprovalLink(),)
    ui_color = "#fff3cd"

    def __init__(
        self, *, train: Train, members: Sequence[Service], policy: Approval | None, **kwargs: Any
    ) -> None:
        super().__init__(
            subject=f"Let {train.name} depart?",
            options=[APPROVE, REJECT],
            outlets=[departures_alias(train.name)],
            **kwargs,
        )
        # The form has only its own field, not what else the DAG's runs are asked for.
        self.params = reason_form()
        self.train = train
        self.members = tuple(members)
        self.policy = policy

    @property
    def approval_task_id(self) -> str | None:
        """Return this task's id, for the link, where a person is asked."""
        return self.task_id if self.policy is not None else None

    def execute(self, context: Context) -> dict[str, Any]:
        """Show the manifest and ask, unless there is nobody to ask, or nothing to ask about."""
        manifest = self._manifest(context)
        for line in manifest.lines():
            self.log.info("  %s", line)
        if self.policy is not None and manifest.passengers:
            self._ask(context, manifest, self.policy, asked_at=datetime.now(timezone.utc))
        return self._depart(context, manifest)

    def execute_complete(
        self, context: Context, event: dict[str, Any], asked_at: str = "", digest: str = ""
    ) -> dict[str, Any]:
        """
        Take the answer, or the news that none came in time.

        :param asked_at: when the question was asked first, in ISO format
        :param digest: the manifest the question was about
        :raises AirflowFailException: rejected or expired, or other releases are on board by now
        """
        manifest, policy = self._manifest(context), self.policy or Approval()
        if digest != manifest.digest:
            self._refuse_to_ask(manifest, digest)
        decision = decision_of(self, event, policy, manifest.digest, manifest.digest)
        if refusal := refusal_of(decision, policy, self._authors(manifest, policy)):
            self.log.warning("This answer does not count: %s. Asking again.", refusal)
            self._ask(context, manifest, policy, asked_at=datetime.fromisoformat(asked_at))
        members = {member.name: member for member in self.members}
        for passenger in manifest.passengers:
            member = members[passenger.service]
            bound = {"digest": passenger.release.digest, "manifest": passenger.manifest}
            its_own = decision.model_copy(update=bound)
            keep_decision(context, member, member.production.name, self.task_id, its_own)
        self.log.info("%s", described(decision))
        if decision.outcome is not ApprovalOutcome.APPROVED:
            raise AirflowFailException(described(decision))
        return self._depart(context, manifest)

    def _depart(self, context: Context, manifest: TrainManifest) -> dict[str, Any]:
        summary = manifest.summary()
        emit_departure(context, self.train, manifest)
        if manifest.passengers:
            notify_of_train(context, self.train, "train_departed", manifest.digest, summary)
        return summary

    def _ask(
        self, context: Context, manifest: TrainManifest, policy: Approval, *, asked_at: datetime
    ) -> NoReturn:
        from airflow_cd.model.decision_requests import QuestionSubject

        ti, about = context["ti"], QuestionSubject(manifest=manifest.digest)
        for member in self.members:
            keep_decision(context, member, member.production.name, self.task_id, None)
        assigned = self._assigned(manifest, policy)
        shown = put_question(
            ti.id,
            subject=manifest.subject(),
            body=manifest.body(),
            options=self.options,
            params=self.serialized_params,
            assigned=assigned,
            about=about,
            default=EXPIRED if policy.expires_after else None,
        )
        if shown != about:
            self._refuse_to_ask(manifest, shown.manifest if shown else None)
        url = approval_url(ti.dag_id, ti.run_id, ti.task_id)
        self.log.info("Waiting for a decision: %s", url)
        facts = {**manifest.summary(), "approvers": assigned, "url": url}
        notify_of_train(context, self.train, "approval_needed", manifest.digest, facts)
        wait_for_answer(asked_at, policy, {"digest": manifest.digest})

    def _authors(self, manifest: TrainManifest, policy: Approval) -> tuple[str, ...]:
        """Return those whose work the train would bring to where its members run now."""
        from airflow_cd.releases.adapters import open_target
        from airflow_cd.releases.authors import authors_known

        members = {member.name: member for member in self.members}
        found: dict[str, None] = dict.fromkeys(manifest.authors)
        for passenger in manifest.passengers:
            member = members[passenger.service]
            record = open_target(member, member.production).record()
            found.update(dict.fromkeys(authors_known(member, passenger.release, record, policy)))
        return tuple(found)

    def _assigned(self, manifest: TrainManifest, policy: Approval) -> list[str]:
        users = policy.who_may_decide(self._authors(manifest, policy))
        if policy.approvers and not users:
            raise AirflowFailException(
                f"nobody may let this train depart: all approvers ({', '.join(policy.approvers)}) wrote a "
                "part of what is on board, and self_approval is false. List another approver, or set it."
            )
        return users

    def _refuse_to_ask(self, manifest: TrainManifest, about: str | None) -> NoReturn:
        raise AirflowFailException(
            f"the manifest is {manifest.digest} by now, but the question is about {about or 'another one'}, "
            "and Airflow keeps it for the whole run. Trigger the DAG: a new run asks about what is ready now."
        )

    def _manifest(self, context: Context) -> TrainManifest:
        from airflow_cd.model.release import ReleaseName, ReleaseRef
        from airflow_cd.model.train import TrainManifest, TrainRelease
        from airflow_cd.releases.adapters import open_target

        passengers, absent = [], {}
        for member in self.members:
            board = f"{BOARDING}.{member.name}"
            if not (pulled := context["ti"].xcom_pull(task_ids=board)):
                why = context["ti"].xcom_pull(task_ids=board, key=ABSENT)
                absent[member.name] = why or "its boarding failed"
                continue
            record = open_target(member, member.production).record()
            running = ReleaseName.of(record.current.release) if record.current else None
            ref = ReleaseRef.model_validate(pulled)
            release, _ = require_signatures(member, member.production, ref)
            passengers.append(
                TrainRelease(
                    release=release,
                    manifest=ref.manifest,
                    running=running,
                    went_wrong=_went_wrong(record, member.production.name),
                )
            )
        return TrainManifest(train=self.train.name, passengers=tuple(passengers), absent=absent)


def _went_wrong(record: Record, environment: str) -> tuple[str, ...]:
    changes = [*([record.current] if record.current else []), *record.previous]
    rollbacks = [one for one in changes if one.rolled_back_from is not None]
    if not rollbacks:
        return ()
    told = f"{len(rollbacks)} of the last {len(changes)} changes of {environment}: rollback"
    return (f"{told} (last: {rollbacks[0].reason or 'no reason given'})",)
