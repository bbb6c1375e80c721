"""Who may decide, and which decision lets which release through."""

from __future__ import annotations

from typing import Literal

import pytest

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.approval import Approval, ApprovalOutcome, Decision, Responder, strictest

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
AUTHORS = ("Alice@Example.com",)


def approved(by: str | None = "bob", digest: str = DIGEST) -> Decision:
    return Decision(outcome=ApprovalOutcome.APPROVED, digest=OTHER, manifest=digest, by=by)


def test_an_approvers_answer_for_this_digest_counts() -> None:
    assert Approval(approvers=("bob",)).check(approved(), DIGEST, AUTHORS) == "approved by bob"


def test_an_answer_for_another_digest_does_not() -> None:
    with pytest.raises(ApprovalError, match=f"{OTHER}.*{DIGEST}"):
        Approval().check(approved(digest=OTHER), DIGEST, AUTHORS)


def test_that_nothing_was_to_be_approved_is_no_approval_of_something_else() -> None:
    with pytest.raises(ApprovalError, match="not needed"):
        Approval().check(
            Decision(outcome=ApprovalOutcome.NOT_NEEDED, digest=OTHER, manifest=DIGEST), DIGEST, AUTHORS
        )


ENDED = [ApprovalOutcome.REJECTED, ApprovalOutcome.EXPIRED, ApprovalOutcome.SUPERSEDED]


@pytest.mark.parametrize("outcome", ENDED)
def test_a_mark_in_spite_of_another_ending_is_an_override_that_says_so(outcome: ApprovalOutcome) -> None:
    by = "bob" if outcome is ApprovalOutcome.REJECTED else None
    decision = Decision(outcome=outcome, digest=DIGEST, manifest=DIGEST, by=by)
    told = f"override ({outcome.value}{' by bob' if by else ''})"
    assert Approval().check(decision, DIGEST, AUTHORS) == told
    with pytest.raises(ApprovalError, match=f"{outcome.value}.*override: deny"):
        Approval(override="deny").check(decision, DIGEST, AUTHORS)


def test_somebody_who_is_not_listed_may_not_approve() -> None:
    with pytest.raises(ApprovalError, match="eve.*not among the approvers"):
        Approval(approvers=("bob",)).check(approved("eve"), DIGEST, AUTHORS)


def test_an_approval_by_nobody_is_none() -> None:
    with pytest.raises(ApprovalError, match="nobody"):
        Approval().check(approved(None), DIGEST, AUTHORS)


@pytest.mark.parametrize("user", ["Bob", "bob ", "b\u043eb"])
def test_approvers_are_matched_exactly(user: str) -> None:
    with pytest.raises(ApprovalError, match="not among the approvers"):
        Approval(approvers=("bob",)).check(approved(user), DIGEST, AUTHORS)


@pytest.mark.parametrize("user", ["", " bob", "bob ", "bob\n"])
def test_an_approver_with_stray_spaces_is_an_error(user: str) -> None:
    with pytest.raises(ValueError, match="approvers"):
        Approval(approvers=(user,))


def test_the_authors_of_all_changes_may_not_approve() -> None:
    with pytest.raises(ApprovalError, match="'bob' is the author of a commit"):
        Approval().check(approved("bob"), DIGEST, ("ada@example.org", "bob@example.org"))


@pytest.mark.parametrize("user", ["alice", "Alice", "alice@example.com", " alice"])
def test_the_author_may_not_approve_their_own_commit(user: str) -> None:
    with pytest.raises(ApprovalError, match="author"):
        Approval().check(approved(user), DIGEST, AUTHORS)


def test_nobody_can_be_told_apart_from_an_author_who_is_not_named() -> None:
    with pytest.raises(ApprovalError, match="has no author to compare"):
        Approval().check(approved("bob"), DIGEST, [" "])
    assert Approval(self_approval=True).check(approved("bob"), DIGEST, [""]) == "approved by bob"
    assert Approval().may_decide(Responder("bob"), ()) is None


def test_self_approval_can_be_allowed() -> None:
    assert Approval(self_approval=True).check(approved("alice"), DIGEST, AUTHORS) == "approved by alice"


def test_identities_map_an_author_to_an_airflow_user() -> None:
    policy = Approval(identities={"alice@example.com": "u42"})
    with pytest.raises(ApprovalError, match="author"):
        policy.check(approved("u42"), DIGEST, AUTHORS)
    # Another user who happens to be called like the address is another user.
    assert policy.check(approved("alice"), DIGEST, AUTHORS)


def test_a_marked_task_counts_as_override_unless_denied() -> None:
    assert Approval(override="allow").check(None, DIGEST, AUTHORS) == "override"
    with pytest.raises(ApprovalError, match="override: deny"):
        Approval(override="deny").check(None, DIGEST, AUTHORS)


def test_where_approvers_are_listed_a_mark_does_not_count_unless_that_is_configured() -> None:
    """A user who can edit the DAG, but is no approver, could otherwise deploy by marking the task."""
    with pytest.raises(ApprovalError, match="override: deny"):
        Approval(approvers=("bob",)).check(None, DIGEST, AUTHORS)
    assert Approval().check(None, DIGEST, AUTHORS) == "override"
    assert Approval(approvers=("bob",), override="allow").check(None, DIGEST, AUTHORS) == "override"
    together = strictest([Approval(), Approval(approvers=("bob",), override="allow")])
    assert together.check(None, DIGEST, AUTHORS) == "override"
    with pytest.raises(ApprovalError, match="override: deny"):
        strictest([Approval(override="allow"), Approval(approvers=("bob",))]).check(None, DIGEST, AUTHORS)


REMEDIES = [
    (approved(digest=OTHER), "deny", "; clear the approval task to ask for this one"),
    (
        Decision(outcome=ApprovalOutcome.NOT_NEEDED, digest=DIGEST, manifest=DIGEST),
        "deny",
        "; clear the approval task to ask",
    ),
    (approved(None), "deny", "; clear the approval task to ask again"),
    (None, "deny", "; clear the approval task and let an approver answer it"),
]


@pytest.mark.parametrize(("decision", "override", "remedy"), REMEDIES)
def test_a_refusal_ends_with_what_to_do(
    decision: Decision | None, override: Literal["allow", "deny"], remedy: str
) -> None:
    with pytest.raises(ApprovalError) as refused:
        Approval(override=override).check(decision, DIGEST, AUTHORS)
    assert str(refused.value).endswith(remedy)


def test_a_refusal_lists_the_approvers() -> None:
    refusal = Approval(approvers=("ann", "bob")).may_decide(Responder("eve"), ())
    assert refusal == "'eve' is not among the approvers (ann, bob)"
