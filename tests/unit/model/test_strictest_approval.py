"""The policy of a train whose members have policies of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_cd.exceptions import ApprovalError
from airflow_cd.model.approval import Approval, Responder, strictest


def together(*policies: dict[str, Any]) -> Approval:
    return strictest([Approval.model_validate(policy) for policy in policies])


def test_only_approvers_of_all_members_can_approve() -> None:
    assert together({"approvers": ["eve", "bob", "ann"]}, {"approvers": ["ann", "bob"]}).approvers == (
        "bob",
        "ann",
    )
    assert together({}, {"approvers": ["bob"]}, {}).approvers == ("bob",)
    assert together({}, {}).approvers == ()


def test_members_without_a_common_approver_are_an_error_that_names_the_approvers() -> None:
    with pytest.raises(ApprovalError, match="nobody among ann, bob may approve all of its members"):
        together({"approvers": ["bob"]}, {"approvers": ["ann"]})


def test_the_question_expires_when_the_first_members_policy_ends_it() -> None:
    assert together({"expires_after": "2h"}, {}, {"expires_after": "1h"}).expires_after == timedelta(hours=1)
    assert together({}, {}).expires_after is None


@pytest.mark.parametrize(("one", "other", "allowed"), [(True, True, True), (True, False, False)])
def test_authors_can_approve_where_all_members_allow_it(one: bool, other: bool, allowed: bool) -> None:
    for policies in ((one, other), (other, one)):
        assert together(*({"self_approval": each} for each in policies)).self_approval is allowed


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [("allow", "allow", "allow"), ("allow", "deny", "deny"), ("deny", "deny", "deny")],
)
def test_an_override_counts_where_all_members_allow_it(one: str, other: str, both: str) -> None:
    for policies in ((one, other), (other, one)):
        assert together(*({"override": each} for each in policies)).override == both


def test_an_author_of_any_member_is_recognised_by_the_identities_of_all_members() -> None:
    policy = together(
        {"identities": {"ann@example.com": "u1"}}, {"identities": {"bob@example.com": "u2"}}, {}
    )
    for user, author in (("u1", "ann@example.com"), ("u2", "bob@example.com")):
        refusal = policy.may_decide(Responder(user), [author])
        assert refusal == f"'{user}' is the author of a commit in this release, and self_approval is false"
