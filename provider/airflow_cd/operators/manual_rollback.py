"""Rolls back to a release that a person chose, or to the previous one after an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskAwaitingInput
from pydantic import ValidationError

from airflow_cd.links.release import ServiceLink, approval_url
from airflow_cd.model import decision_requests
from airflow_cd.model.approval import Responder
from airflow_cd.model.health import AlarmPayload
from airflow_cd.model.text import printable
from airflow_cd.operators.rollback import Restoration
from airflow_cd.operators.rollouts import RolloutFollower
from airflow_cd.releases.events import trigger_payloads
from airflow_cd.releases.history import changes_alias
from airflow_cd.releases.questions import LONGEST_REASON, put_question
from airflow_cd.releases.run import actor_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import Target
    from airflow_cd.targets.record import Record

CANCEL = "Cancel"
_STATE_KEY = "bad"


class ManualRollbackOperator(HITLOperator):
    """
    Rolls one environment of a service back, by the target's own record.

    A run that an alarm started goes back to the release before, if the one the alarm is about still runs
    and was not itself gone back to. A run that a person started goes back to the release its params name
    (``previous``, a version, a commit, a digest), or parks and asks which one (``choose``); it holds
    automatic promotion off. What is rolled back is settled when the task first runs: a release that is
    deployed while it waits or is retried is never undone.

    :param service: what to roll back
    :param environment: name of the environment
    """

    template_fields: Sequence[str] = ()
    operator_extra_links = (ServiceLink(),)
    ui_color = "#fce8e6"

    def __init__(self, *, service: Service, environment: str, **kwargs: Any) -> None:
        super().__init__(
            subject=f"Roll {service.name} back in {environment}: to which release?",
            options=[CANCEL],
            outlets=[changes_alias(service.name, environment)],
            **kwargs,
        )
        self.service = service
        self.environment = environment
        self.service_url: str | None = None

    @property
    def _restoration(self) -> Restoration:
        follower = RolloutFollower(self.service, self.environment, self.log)
        return Restoration(follower, partial(setattr, self, "service_url"))

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

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Roll back, or ask to which release.

        :raises AirflowSkipException: the run is about another environment, or something else runs by now
        :raises AirflowFailException: there is no such release, it does not become ready, or is unhealthy too
        """
        alarm = self._alarm(context)
        if alarm is None and context["params"].get("environment") != self.environment:
            raise AirflowSkipException(f"this run is not about {self.environment}")
        target = self._restoration.follower.open_target()
        record = target.record()
        bad = self._settle(context, record, alarm)
        if alarm is not None:
            self.log.warning("Alarm: %s", alarm.reason)
            return self._restoration.restore(context, target, bad=bad, reason=alarm.reason)
        wanted = str(context["params"].get("release") or decision_requests.PREVIOUS)
        self._refuse_other_way(record, wanted)
        if wanted == decision_requests.CHOOSE:
            self._ask(context, record, bad)
        try:
            to = decision_requests.find_release(wanted, [deployed.release for deployed in record.previous])
        except ValueError as error:
            raise AirflowFailException(str(error)) from error
        return self._restore_by_hand(context, target, bad=bad, to=to, by=_user(context))

    def execute_complete(
        self, context: Context, event: dict[str, Any], bad: str = "", choices: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """
        Take the choice.

        :raises AirflowSkipException: cancelled, or something else runs by now
        """
        if "error" in event:
            self.process_trigger_event_error(event)
        (chosen,) = event["chosen_options"]
        user = Responder.of(event)
        by = user.shown if user else _user(context)
        if chosen == CANCEL:
            raise AirflowSkipException(f"cancelled by {by}")
        to = (choices or {})[chosen]
        target = self._restoration.follower.open_target()
        self._check_still_runs(context, target.record(), bad)
        return self._restore_by_hand(context, target, bad=bad, to=to, by=by)

    def _alarm(self, context: Context) -> AlarmPayload | None:
        """Return the newest alarm about this environment among the events that started the run."""
        found = []
        for timestamp, content in trigger_payloads(context, self.log):
            payload = self._payload(content)
            if payload is not None and payload.environment == self.environment:
                found.append((timestamp, payload))
        if not found and context["dag_run"].run_type == "asset_triggered":
            raise AirflowSkipException(f"no alarm of this run is about {self.environment}")
        return max(found, key=lambda pair: pair[0])[1] if found else None

    def _payload(self, content: Any) -> AlarmPayload | None:
        try:
            return AlarmPayload.model_validate(content)
        except ValidationError as error:
            self.log.warning("An event that is no alarm is left out: %s", error)
            return None

    def _settle(self, context: Context, record: Record, alarm: AlarmPayload | None) -> str:
        """Return the digest to be replaced, the same one in every try of this task."""
        # What a person finds bad is what came last, also when it is still on its way in.
        coming, current = record.rollout, record.current
        newest = coming.candidate if coming is not None and coming.kind == "deploy" else current
        if newest is None:
            raise AirflowFailException(f"{self.service.name} was never deployed to {self.environment}")
        state = context["task_state_store"]
        bad = str(alarm.digest if alarm else state.get(_STATE_KEY) or newest.release.digest)
        state.set(_STATE_KEY, bad)
        if self._is_done(context, record, bad):
            return bad
        self._check_still_runs(context, record, bad)
        if alarm is not None and record.generation != alarm.generation:
            raise AirflowSkipException(
                f"the alarm was about generation {alarm.generation} of {self.environment}, which is at "
                f"{record.generation} now"
            )
        if alarm is not None and current is not None and current.rolled_back_from is not None:
            raise AirflowFailException(
                f"{current.release.version} is unhealthy ({alarm.reason}), but was itself gone back to; "
                "the cause is hardly the release. A person is needed."
            )
        return bad

    def _is_done(self, context: Context, record: Record, bad: str) -> bool:
        """Return whether a try that was killed went back already; only the verification is left then."""
        current = record.current
        return current is not None and current.actor == actor_of(context) and current.rolled_back_from == bad

    def _check_still_runs(self, context: Context, record: Record, bad: str) -> None:
        current, coming = record.current, record.rollout
        if coming is not None and bad in (coming.candidate.release.digest, coming.candidate.rolled_back_from):
            return
        if current is None or (current.release.digest != bad and not self._is_done(context, record, bad)):
            runs = f"{current.release.version} by {current.actor}" if current else "nothing"
            raise AirflowSkipException(
                f"{self.environment} runs {runs} by now, not {bad}: nothing is rolled back"
            )

    def _refuse_other_way(self, record: Record, wanted: str) -> None:
        """While a release is on its way in, going back is giving up on it; anything else comes after that."""
        coming = record.rollout
        if coming is not None and coming.kind == "deploy" and wanted != decision_requests.PREVIOUS:
            raise AirflowFailException(
                f"{coming.candidate.release.version} is being rolled out in {self.environment}; roll back to "
                f"{decision_requests.PREVIOUS!r} first, which aborts that, and then to {wanted!r}"
            )

    def _ask(self, context: Context, record: Record, bad: str) -> None:
        """Park until a person has chosen one of the releases that are still there."""
        ti = context["ti"]
        releases = [deployed.release for deployed in record.previous]
        choices = decision_requests.release_choices(releases)
        if record.current is None or not choices:
            raise AirflowFailException(f"{self.environment} has no release to go back to")
        put_question(
            ti.id,
            subject=self.subject,
            body=decision_requests.rollback_body(self.environment, record.current.release, releases),
            options=[*choices, CANCEL],
            params={},
        )
        self.log.info("Waiting for a choice: %s", approval_url(ti.dag_id, ti.run_id, ti.task_id))
        raise TaskAwaitingInput(
            method_name="execute_complete", timeout=None, kwargs={"bad": bad, "choices": choices}
        )

    def _restore_by_hand(
        self, context: Context, target: Target, *, bad: str, to: str | None, by: str
    ) -> dict[str, Any]:
        from airflow_cd.targets.record import Hold

        why = printable(str(context["params"].get("reason") or ""), LONGEST_REASON) or None
        hold = Hold(by=by, since=datetime.now(timezone.utc), reason=why)
        self.log.info("%s rolls %s back: %s", by, self.environment, why or "no reason given")
        said = f"by {by}: {why or 'no reason given'}"
        return self._restoration.restore(context, target, bad=bad, to=to, reason=said, hold=hold)


def _user(context: Context) -> str:
    return context["dag_run"].triggering_user_name or "a person"
