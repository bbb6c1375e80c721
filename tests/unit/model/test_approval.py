"""Who may decide, and which decision lets which release through."""

from __future__ import annotations

import pytest

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.approval import Approval, Decision, Outcome

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
AUTHOR = "Alice@Example.com"


def approved(by: str | None = "bob", digest: str = DIGEST) -> Decision:
    return Decision(outcome=Outcome.APPROVED, digest=digest, by=by)


def test_an_approvers_answer_for_this_digest_counts() -> None:
    assert Approval(approvers=("bob",)).check(approved(), DIGEST, AUTHOR) == "approved by bob"


def test_an_answer_for_another_digest_does_not() -> None:
    with pytest.raises(ApprovalError, match=f"{OTHER}.*{DIGEST}"):
        Approval().check(approved(digest=OTHER), DIGEST, AUTHOR)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.APPROVED])
def test_only_an_approval_is_an_approval(outcome: Outcome) -> None:
    decision = Decision(outcome=outcome, digest=DIGEST, by="bob")
    with pytest.raises(ApprovalError, match=outcome.value):
        Approval().check(decision, DIGEST, AUTHOR)


def test_somebody_who_is_not_listed_may_not_approve() -> None:
    with pytest.raises(ApprovalError, match="eve.*not among the approvers"):
        Approval(approvers=("bob",)).check(approved("eve"), DIGEST, AUTHOR)


def test_an_approval_by_nobody_is_none() -> None:
    with pytest.raises(ApprovalError, match="nobody"):
        Approval().check(approved(None), DIGEST, AUTHOR)


@pytest.mark.parametrize("user", ["alice", "Alice", "alice@example.com"])
def test_the_author_may_not_approve_their_own_commit(user: str) -> None:
    with pytest.raises(ApprovalError, match="author"):
        Approval().check(approved(user), DIGEST, AUTHOR)


def test_nobody_can_be_told_apart_from_an_author_who_is_not_named() -> None:
    with pytest.raises(ApprovalError, match="names no author"):
        Approval().check(approved("bob"), DIGEST, " ")
    assert Approval(self_approval=True).check(approved("bob"), DIGEST, "") == "approved by bob"
    assert Approval().may_decide("bob", None) is None


def test_self_approval_can_be_allowed() -> None:
    assert Approval(self_approval=True).check(approved("alice"), DIGEST, AUTHOR) == "approved by alice"


def test_identities_map_an_author_to_an_airflow_user() -> None:
    policy = Approval(identities={"alice@example.com": "u42"})
    with pytest.raises(ApprovalError, match="author"):
        policy.check(approved("u42"), DIGEST, AUTHOR)
    # Another user who happens to be called like the address is somebody else.
    assert policy.check(approved("alice"), DIGEST, AUTHOR)


def test_a_marked_task_counts_as_override_unless_denied() -> None:
    assert Approval(override="allow").check(None, DIGEST, AUTHOR) == "override"
    with pytest.raises(ApprovalError, match="override: deny"):
        Approval(override="deny").check(None, DIGEST, AUTHOR)
