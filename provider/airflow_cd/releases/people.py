"""Who counts as a person: what a program triggers or answers is nobody's decision, unless it is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.configuration import conf

if TYPE_CHECKING:
    from airflow_cd.model.approval import Approval, Responder


def is_person(name: str | None) -> bool:
    """
    Return whether a user of Airflow is a person.

    All are but those that ``[cd] machine_users`` lists: an auth manager does not say whose password or token
    it is that a program uses.

    :param name: of the user; ``None`` when nobody is named, as in runs that a DAG triggers
    """
    if not name:
        return False
    listed = conf.get("cd", "machine_users", fallback="").split(",")
    return name.strip().casefold() not in {user.strip().casefold() for user in listed}


def refusal_of_program(user: Responder, policy: Approval) -> str | None:
    """Return why the answer of a program does not count, ``None`` for a person's, or where it is listed."""
    if is_person(user.shown) or user.is_among(policy.approvers):
        return None
    return f"{user.shown!r} is a program ([cd] machine_users), and is not among the approvers"
