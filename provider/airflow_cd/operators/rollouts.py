"""Follows rollouts for tasks: waits for them in the triggerer, and asks people how to continue."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from airflow_cd.exceptions import DeployConflictError
from airflow_cd.model.rollout import Phase

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

    from airflow_cd.model.approval import Responder
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import ProgressiveTarget, Target
    from airflow_cd.targets.record import DeployOutcome, Record, Rollout

# As long as giving the worker slot back and getting one again takes, see HealthTrigger.
_ON_WORKER_SECONDS = 3.0


class FinishedRollout(NamedTuple):
    """
    A rollout that is over.

    :param record: as it is then
    :param outcome: how it ended
    """

    target: ProgressiveTarget
    record: Record
    outcome: DeployOutcome


@dataclass(frozen=True)
class RolloutFollower:
    """
    Follows a rollout for a task.

    It waits on the worker for a moment, and then in the triggerer, which also drives the rollout. When the
    rollout asks, it puts the question and goes on waiting: an answer resumes the task, and the release is
    watched meanwhile. The task resumes in its method ``rolled_out``, which calls :meth:`resume`.

    :param service: whose rollout
    :param environment: name of the environment
    """

    service: Service
    environment: str
    log: Logger

    def follow(self, record: Record, target: ProgressiveTarget, kwargs: Mapping[str, str | None]) -> Record:
        """
        Return the record when no rollout is in progress in it any more.

        :param kwargs: further arguments of the task's ``rolled_out``
        :raises TaskDeferred: the rollout goes on in the triggerer
        """
        rollout = record.rollout
        if rollout is None:
            return record
        record = self._wait_here(record, rollout, target)
        if record.rollout is not None and record.rollout.token == rollout.token:
            self._wait_in_triggerer(rollout.token, None, kwargs)
        return record

    def resume(
        self,
        context: Context,
        event: dict[str, Any],
        token: str,
        asked: str | None,
        kwargs: Mapping[str, str | None],
    ) -> FinishedRollout:
        """
        Take an event of the trigger, or the answer of a person, and return the end of the rollout.

        :param asked: name of the question that was put, if one was
        :param kwargs: further arguments of the task's ``rolled_out``
        :raises TaskDeferred: it is not over
        :raises AirflowFailException: the triggerer cannot drive it
        """
        from airflow_cd.targets.base import ProgressiveTarget
        from airflow_cd.targets.record import outcome_of

        target = self.open_target()
        assert isinstance(target, ProgressiveTarget)
        if "chosen_options" in event:
            self._answered(target, token, event, asked)
            asked = None
        elif event.get("state") == "stuck":
            raise AirflowFailException(str(event["reason"]))
        elif event.get("state") == "asking":
            record = target.record()
            if record.rollout is not None and record.rollout.token == token:
                asked = self._ask_how_to_go_on(context, record.rollout)
        record = target.record()
        outcome = outcome_of(record, token)
        if outcome.state == "under way":
            self._wait_in_triggerer(token, asked, kwargs)
        return FinishedRollout(target, record, outcome)

    def notify_of_abort(self, context: Context, record: Record) -> None:
        """Notify people of the rollout that was aborted last."""
        from airflow_cd.model.release import ReleaseName
        from airflow_cd.releases.notifications import notify

        aborted, current = record.aborted, record.current
        if aborted is None:
            return
        facts = {
            "release": aborted.release.model_dump(mode="json"),
            "runs": ReleaseName.of(current.release).model_dump(mode="json") if current else None,
            "reason": aborted.reason,
            "actor": aborted.actor,
        }
        notify(context, self.service, self.environment, "aborted", aborted.token, facts)

    def open_target(self) -> Target:
        """Return the target of the environment."""
        from airflow_cd.releases.adapters import open_target

        return open_target(self.service, self.service.environment(self.environment))

    def _wait_here(self, record: Record, rollout: Rollout, target: ProgressiveTarget) -> Record:
        from airflow_cd.targets.record import rollout_of
        from airflow_cd.targets.rollout_controller import drive_to_completion

        goes_back = rollout.progress.phase is Phase.ABORTING
        if not goes_back and any(step.weight is None for step in rollout.plan.steps):
            return record  # pauses and measurements are the triggerer's
        end, shown = time.monotonic() + _ON_WORKER_SECONDS, ""
        for now in drive_to_completion(target.advance, record, rollout.token):
            record, under_way = now, rollout_of(now, rollout.token)
            stands = rollout.plan.described(under_way.progress) if under_way else shown
            if stands != shown:
                self.log.info("%s", stands)
                shown = stands
            if time.monotonic() > end:
                break
        return record

    def _wait_in_triggerer(self, token: str, asked: str | None, kwargs: Mapping[str, str | None]) -> NoReturn:
        from airflow_cd.triggers.rollout import RolloutTrigger

        environment = self.service.environment(self.environment)
        self.log.info("The rollout goes on in the triggerer")
        raise TaskDeferred(
            trigger=RolloutTrigger.of(self.service.name, environment, token, asked),
            method_name="rolled_out",
            kwargs={"token": token, "asked": asked, **kwargs},
        )

    def _ask_how_to_go_on(self, context: Context, rollout: Rollout) -> str:
        """Put the question how to go on, and return its name."""
        from airflow_cd.links.release import approval_url
        from airflow_cd.model import decision_requests
        from airflow_cd.model.release import ReleaseName
        from airflow_cd.releases.notifications import notify
        from airflow_cd.releases.questions import put_question, reason_form
        from airflow_cd.triggers.rollout import question_of

        ti = context["ti"]
        release, plan = rollout.candidate.release, rollout.plan
        put_question(
            ti.id,
            subject=decision_requests.rollout_subject(release, self.environment),
            body=decision_requests.rollout_body(
                release, self.environment, plan.described(rollout.progress), rollout.progress
            ),
            options=[*self._other_options(), decision_requests.GO_ON, decision_requests.ABORT],
            params={"reason": reason_form().get_param("reason").serialize()},
            assigned=self._who_may_answer(release),
            about=decision_requests.QuestionSubject.of(release),
        )
        url, question = approval_url(ti.dag_id, ti.run_id, ti.task_id), question_of(rollout.progress)
        self.log.info("The rollout asks how to go on (%s): %s", rollout.progress.reason, url)
        facts = {
            "release": ReleaseName.of(release).model_dump(mode="json"),
            "reason": rollout.progress.reason,
            "stands": plan.described(rollout.progress),
            "url": url,
        }
        notify(context, self.service, self.environment, "rollout_asks", question, facts)
        return question

    def _answered(
        self, target: ProgressiveTarget, token: str, event: dict[str, Any], asked: str | None
    ) -> None:
        """Hand an answer on to the rollout, if it counts; else it is asked again."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

        from airflow_cd.model import decision_requests
        from airflow_cd.model.approval import Responder
        from airflow_cd.model.rollout import RolloutAnswer
        from airflow_cd.releases.questions import reason_in
        from airflow_cd.targets.rollout_controller import POLL_SECONDS

        user = Responder.of(event) or Responder("a person")
        by, chosen, record = user.shown, event["chosen_options"], target.record()
        rollout = record.rollout
        if rollout is None or rollout.token != token:
            return
        if refusal := self._refused(user, chosen, rollout.candidate.release, record):
            self.log.warning("This answer does not count: %s. Asking again.", refusal)
            return
        promote = chosen == [decision_requests.GO_ON]
        self.log.info("%s by %s: %s", chosen[0], by, reason_in(event) or "no reason given")
        step = int(asked.partition("/")[0]) if asked else None
        answer = RolloutAnswer(promote=promote, by=by, reason=reason_in(event), step=step)
        # The triggerer drives the same rollout, and may hold its lease just now.
        again = retry_if_exception_type(DeployConflictError)
        retrying = Retrying(
            retry=again, wait=wait_fixed(POLL_SECONDS), stop=stop_after_attempt(11), reraise=True
        )
        retrying(target.advance, token, answer=answer)

    def _refused(self, user: Responder, chosen: list[str], release: Release, record: Record) -> str | None:
        from airflow_cd.exceptions import SourceError
        from airflow_cd.model import decision_requests
        from airflow_cd.model.approval import Approval
        from airflow_cd.releases.authors import authors_now
        from airflow_cd.releases.people import refusal_of_program

        if chosen not in ([decision_requests.GO_ON], [decision_requests.ABORT]):
            return f"{chosen} is no answer to this question"
        policy = self.service.environment(self.environment).approval or Approval()
        if refusal := refusal_of_program(user, policy):
            return refusal
        # Authors cannot let their own work on, but they may take it back.
        if chosen == [decision_requests.ABORT]:
            return policy.may_decide(user, ())
        try:
            authors = authors_now(self.service, release, record, policy)
        except SourceError as error:
            # Nothing looks again behind this answer, so it cannot count on what the manifest says alone.
            return f"who wrote this release cannot be read now, and self_approval is false ({error})"
        return policy.may_decide(user, authors)

    def _who_may_answer(self, release: Release) -> list[str]:
        environment = self.service.environment(self.environment)
        approvers = environment.approval.approvers if environment.approval else ()
        # Airflow keeps a task's first question: all later assignees must be among those.
        return sorted({*approvers, *environment.window_approvers}) if approvers else []

    def _other_options(self) -> list[str]:
        from airflow_cd.model.decision_requests import DEPLOY_NOW

        return [DEPLOY_NOW] if self.service.environment(self.environment).window_approvers else []
