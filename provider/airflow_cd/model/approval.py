"""Who may let a release into an environment, and what they decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StringConstraints

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.base import Duration, Frozen, format_duration
from airflow_cd.model.release import Digest


class ApprovalOutcome(str, Enum):
    """How an approval ended."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    NOT_NEEDED = "not needed"  # the environment runs this very release already


# Matched exactly: a space that a person typed by mistake must not make another user of it.
UserId = Annotated[str, StringConstraints(pattern=r"^\S(.*\S)?$")]


class Responder(NamedTuple):
    """
    Who answered, as Airflow tells it.

    With Airflow's simple auth manager both are the user name; FAB's ids are numbers.

    :param id: of the auth manager
    :param name: with which the person logs in
    """

    id: str
    name: str = ""

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Responder | None:
        """Return who gave the answer in an event of Airflow; ``None`` when nobody did."""
        user = event.get("responded_by_user") or {}
        return cls(str(user["id"]), str(user.get("name") or "")) if user.get("id") else None

    @property
    def shown(self) -> str:
        """Return what people call this user."""
        return self.name or self.id

    def is_among(self, users: Iterable[str]) -> bool:
        """Return whether one of these is this user, by name or by id."""
        return not {self.id, self.shown}.isdisjoint(users)


class Approval(Frozen):
    """
    The policy of one environment.

    :param approvers: Airflow user names, or ids, who may decide; empty means everybody who may act on the DAG
    :param expires_after: a candidate nobody decided on is closed as expired after this time; an approval that
        is older allows nothing any more
    :param self_approval: whether authors may approve a release that has commits of their own
    :param override: whether marking the task as success counts as an approval (``allow``) or not (``deny``);
        by default ``deny`` where ``approvers`` are listed, and ``allow`` where none are
    :param identities: commit author's e-mail address -> Airflow user id, for ``self_approval: false``.
        An address that is not listed is matched by its local part and as a whole.
    """

    approvers: tuple[UserId, ...] = ()
    expires_after: Duration | None = None
    self_approval: bool = False
    override: Literal["allow", "deny"] | None = None
    identities: dict[str, str] = Field(default_factory=dict)

    @property
    def override_rule(self) -> Literal["allow", "deny"]:
        """Return what marking the task as success means, with the default applied."""
        return self.override or ("deny" if self.approvers else "allow")

    def user_of(self, email: str) -> set[str]:
        """Return the Airflow user ids that stand for the commit author with this address."""
        address = email.strip().lower()
        for listed, user in self.identities.items():
            if listed.strip().lower() == address:
                return {user}
        return {address, address.partition("@")[0]}

    def may_decide(self, user: Responder, authors: Iterable[str]) -> str | None:
        """
        Return why ``user`` cannot approve, or ``None`` when they may.

        :param authors: e-mail addresses of those whose work would be approved
        """
        if self.approvers and not user.is_among(self.approvers):
            return f"{user.shown!r} is not among the approvers ({', '.join(self.approvers)})"
        if self.self_approval:
            return None
        for author in authors:
            if not author.strip():
                return "a commit has no author to compare an approver with"
            names = {_folded(name) for name in self.user_of(author)}
            if not names.isdisjoint((_folded(user.id), _folded(user.shown))):
                return f"{user.shown!r} is the author of a commit in this release, and self_approval is false"
        return None

    def who_may_decide(self, authors: Iterable[str]) -> list[str]:
        """Return the approvers who are none of the authors."""
        authors = list(authors)
        return [user for user in self.approvers if self.may_decide(Responder(user), authors) is None]

    def check(
        self, decision: Decision | None, manifest: str, authors: Iterable[str], now: datetime | None = None
    ) -> str:
        """
        Return how a deployment was allowed: ``approved by <user>`` or ``override``.

        :param decision: the kept answer; ``None`` when nobody gave one. The deployment is asked for all the
            same, so the approval task was marked as success in Airflow.
        :param manifest: digest of the manifest of the release that would be deployed
        :param authors: e-mail addresses of those whose work would be deployed
        :param now: for ``expires_after``
        :raises ApprovalError: it was not allowed, or something else was
        """
        if decision is None:
            return self._override("without an answer")
        if decision.outcome in (
            ApprovalOutcome.REJECTED,
            ApprovalOutcome.EXPIRED,
            ApprovalOutcome.SUPERSEDED,
        ):
            by = f" by {decision.by}" if decision.by else ""
            return self._override(f"{decision.outcome.value}{by}")
        if decision.manifest != manifest:
            raise ApprovalError(
                f"the approval was given for manifest {decision.manifest or 'unknown'} of {decision.digest}, "
                f"but manifest {manifest} would be deployed; clear the approval task to ask for this one"
            )
        if decision.outcome is not ApprovalOutcome.APPROVED:
            raise ApprovalError(
                f"the recorded decision is {decision.outcome.value!r}, not an approval; "
                "clear the approval task to ask"
            )
        if not decision.by:
            raise ApprovalError("the approval names nobody who gave it; clear the approval task to ask again")
        if refusal := self.may_decide(Responder(decision.by_id or decision.by, decision.by), authors):
            raise ApprovalError(f"the approval does not count: {refusal}")
        if now is not None and self._is_too_old(decision, now):
            raise ApprovalError(
                f"the approval by {decision.by} is of {decision.at}, and counts for "
                f"{format_duration(self.expires_after or timedelta())} (expires_after); clear the approval "
                "task to ask again"
            )
        return f"approved by {decision.by}"

    def _is_too_old(self, decision: Decision, now: datetime) -> bool:
        return self.expires_after is not None and (
            decision.at is None or now - decision.at > self.expires_after
        )

    def _override(self, instead_of: str) -> str:
        """Allow a deployment although the question ended otherwise; the record says how."""
        if self.override_rule == "allow":
            return "override" if instead_of == "without an answer" else f"override ({instead_of})"
        raise ApprovalError(
            f"the approval task was marked as success ({instead_of}), which does not count: `override: deny` "
            "is set, or is the default because `approvers` are listed; clear the approval task and let an "
            "approver answer it"
        )


def strictest(policies: Sequence[Approval]) -> Approval:
    """
    Return the policy under which only what each of these policies allows is allowed.

    :param policies: at least one
    :raises ApprovalError: their approvers have nobody in common
    """
    lists = [policy.approvers for policy in policies if policy.approvers]
    common = tuple(user for user in lists[0] if all(user in one for one in lists)) if lists else ()
    if lists and not common:
        names = sorted({user for one in lists for user in one})
        raise ApprovalError(f"nobody among {', '.join(names)} may approve all of its members")
    times = [policy.expires_after for policy in policies if policy.expires_after is not None]
    return Approval(
        approvers=common,
        expires_after=min(times, default=None),
        self_approval=all(policy.self_approval for policy in policies),
        override="deny" if any(policy.override_rule == "deny" for policy in policies) else "allow",
        identities={email: user for policy in policies for email, user in policy.identities.items()},
    )


def _folded(user: str) -> str:
    """Names that differ in case or spaces alone are one person's, where that forbids something."""
    return user.strip().casefold()


class Decision(Frozen):
    """
    A recorded answer, bound to one manifest.

    :param by: the user who gave it, by name; ``None`` when nobody answered
    :param by_id: the id of that user, where it is another
    :param digest: the release, or the train's manifest
    :param manifest: digest of the release manifest, which covers everything that is deployed. Records of
        earlier versions do not have it, and allow nothing.
    :param until: when it ends to count: that of a closed window's override, at the opening it was given for
    :param closed: why the environment was closed, of such an override: it is for that reason alone
    """

    outcome: ApprovalOutcome
    digest: Digest
    manifest: Digest | None = None
    by: str | None = None
    by_id: str | None = None
    at: datetime | None = None
    reason: str | None = None
    until: datetime | None = None
    closed: str | None = None
