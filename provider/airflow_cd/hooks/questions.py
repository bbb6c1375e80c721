"""Puts a question to people, and tells what Airflow really shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_cd.model.text import printable

LONGEST_REASON = 500


def put_question(
    ti_id: Any,
    *,
    subject: str,
    body: str,
    options: Sequence[str],
    params: Mapping[str, Any],
    assigned: Sequence[str] = (),
    default: str | None = None,
) -> str:
    """
    Ask, and return the body that is shown.

    Airflow keeps one question per task of a run, also when the task is cleared. Asked once more, it forgets
    the answer but goes on showing the first question, so the returned body is not always the given one.

    :param ti_id: id of the task instance that asks
    :param assigned: ids of the users who may answer; empty means everybody who may act on the DAG
    :param default: what Airflow enters as the answer when nobody gave one in time; nobody can answer then
    """
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    # As airflow.sdk.execution_time.hitl.upsert_hitl_detail does, which drops the reply.
    shown = SUPERVISOR_COMMS.send(
        CreateHITLDetailPayload.model_validate(
            {
                "ti_id": ti_id,
                "options": list(options),
                "subject": subject,
                "body": body,
                "params": dict(params),
                "assigned_users": [{"id": user, "name": user} for user in assigned],
                "defaults": None if default is None else [default],
            }
        )
    )
    return str(getattr(shown, "body", None) or "")


@cache
def reason_form() -> ParamsDict:
    """
    Return the form in which somebody gives the reason of an answer.

    All tasks share one: making params is slow, and a thousand services are parsed at once.
    """
    return ParamsDict(
        {
            "reason": Param(
                "", type=["string", "null"], title="Reason", maxLength=LONGEST_REASON, source="task"
            )
        }
    )


def reason_in(event: Mapping[str, Any]) -> str | None:
    """Return the reason that an answer gives, if it gives one. :param event: what Airflow tells of it"""
    reason = (event.get("params_input") or {}).get("reason")
    return printable(str(reason), LONGEST_REASON) if reason else None
