"""Who may let a release into an environment, and what they decided."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Literal

from pydantic import Field

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.base import Duration, Frozen
from airflow_cd.model.release import Digest


class Outcome(str, Enum):
    """How an approval ended."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    NOT_NEEDED = "not needed"  # the environment runs this very release already


class Approval(Frozen):
    """
    The policy of one environment.

    :param approvers: Airflow user ids who may decide; empty means everybody who may act on the DAG
    :param expires_after: a candidate nobody decided on is closed as expired after this time
    :param self_approval: whether the author of the commit may approve it
    :param override: whether marking the task as success counts as an approval (``allow``) or not (``deny``)
    :param identities: commit author's e-mail address -> Airflow user id, for ``self_approval: false``.
        An address that is not listed is matched by its local part and as a whole.
    """

    approvers: tuple[str, ...] = ()
    expires_after: Duration | None = None
    self_approval: bool = False
    override: Literal["allow", "deny"] = "allow"
    identities: dict[str, str] = Field(default_factory=dict)

    def user_of(self, email: str) -> set[str]:
        """Return the Airflow user ids that stand for the commit author with this address."""
        address = email.strip().lower()
        for listed, user in self.identities.items():
            if listed.strip().lower() == address:
                return {user}
        return {address, address.partition("@")[0]}

    def may_decide(self, user: str, author_email: str | None) -> str | None:
        """
        Return why ``user`` may not decide on a commit of this author, or ``None`` when they may.

        :param author_email: ``None`` where it does not matter who the author is
        """
        if self.approvers and user not in self.approvers:
            return f"{user!r} is not among the approvers ({', '.join(self.approvers)})"
        if self.self_approval or author_email is None:
            return None
        if not author_email.strip():
            return "the commit names no author, from whom an approver could be told apart"
        if user.lower() in {name.lower() for name in self.user_of(author_email)}:
            return f"{user!r} is the author of the commit, and self_approval is false"
        return None

    def check(self, decision: Decision | None, digest: str, author_email: str) -> str:
        """
        Return how a deployment of ``digest`` was allowed: ``approved by <user>`` or ``override``.

        :param decision: the recorded answer; ``None`` when the task was marked as success in Airflow
        :raises ApprovalError: it was not allowed, or something else was
        """
        if decision is None:
            return self._check_override()
        if decision.outcome is not Outcome.APPROVED:
            raise ApprovalError(
                f"the recorded decision is {decision.outcome.value!r}, not an approval; ask again"
            )
        if decision.digest != digest:
            raise ApprovalError(
                f"the approval was given for {decision.digest}, but {digest} would be deployed; "
                "clear the approval task to ask for this one"
            )
        if not decision.by:
            raise ApprovalError("the approval names nobody who gave it; clear the approval task to ask again")
        if refusal := self.may_decide(decision.by, author_email):
            raise ApprovalError(f"the approval does not count: {refusal}")
        return f"approved by {decision.by}"

    def _check_override(self) -> str:
        if self.override == "deny":
            raise ApprovalError(
                "the approval task was marked as success without an answer, and `override: deny` is set; "
                "clear the approval task and let an approver answer it"
            )
        return "override"


class Decision(Frozen):
    """
    A recorded answer, bound to one digest. ``by`` is the Airflow user id, ``None`` when nobody answered.
    """

    outcome: Outcome
    digest: Digest
    by: str | None = None
    at: datetime | None = None
    reason: str | None = None
