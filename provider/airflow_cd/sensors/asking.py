"""What the tasks have in common that wait for somebody to approve."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow.sdk.exceptions import TaskAwaitingInput

from airflow_cd.hooks.questions import reason_in
from airflow_cd.model.approval import Approval, ApprovalOutcome, Decision
from airflow_cd.model.base import format_duration

APPROVE, REJECT = "Approve", "Reject"
# What Airflow enters as the answer when nobody gave one in time. It is not among the buttons.
EXPIRED = "Expired"


class ApproversMixin:
    """Parks a task until somebody answered, and reads the answer; for operators that extend Airflow's."""

    process_trigger_event_error: Any

    def _park(self, asked_at: datetime, policy: Approval, digest: str) -> NoReturn:
        """
        Give up the worker slot until somebody answers, or nobody did in time.

        :param asked_at: when the question was asked first
        :param digest: what the question is about
        """
        expires = policy.expires_after
        raise TaskAwaitingInput(
            method_name="execute_complete",
            # A clock that was set back meanwhile must not give more time than was meant.
            timeout=expires and min(asked_at + expires - datetime.now(timezone.utc), expires),
            kwargs={"asked_at": asked_at.isoformat(), "digest": digest},
        )

    def _decision(self, event: dict[str, Any], policy: Approval, digest: str) -> Decision:
        """Return what was decided about ``digest``. :raises Exception: the event tells of an error"""
        if "error" in event and event.get("error_type") != "timeout":
            self.process_trigger_event_error(event)
        if "error" in event or event["chosen_options"] == [EXPIRED]:
            waited = format_duration(policy.expires_after or timedelta())
            why = f"nobody decided within {waited}"
            return Decision(outcome=ApprovalOutcome.EXPIRED, digest=digest, reason=why)
        return Decision(
            outcome=ApprovalOutcome.APPROVED
            if event["chosen_options"] == [APPROVE]
            else ApprovalOutcome.REJECTED,
            digest=digest,
            by=(event.get("responded_by_user") or {}).get("id"),
            at=event.get("responded_at"),
            reason=reason_in(event),
        )

    def _refusal(self, decision: Decision, policy: Approval, authors: tuple[str, ...]) -> str | None:
        """Return why this answer does not count, or ``None``. :param authors: of what would be let in"""
        if decision.outcome is ApprovalOutcome.EXPIRED:
            return None
        # Authors may not let their own work in, but they may take it back.
        return policy.may_decide(
            decision.by or "", authors if decision.outcome is ApprovalOutcome.APPROVED else ()
        )


def told(decision: Decision) -> str:
    """Return the decision as a log says it."""
    by = f" by {decision.by}" if decision.by else ""
    return f"{decision.outcome.value}{by}: {decision.reason or 'no reason given'}"
