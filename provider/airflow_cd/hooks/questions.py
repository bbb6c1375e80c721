"""Puts a question to people, and tells what Airflow really shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
