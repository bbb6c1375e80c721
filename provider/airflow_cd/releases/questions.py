"""Asks people through Airflow's human-in-the-loop API, and previews what a decision would change."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict

from airflow_cd.exceptions import CdError
from airflow_cd.model.decision_requests import ABOUT, QuestionSubject, subject_in
from airflow_cd.model.text import escape, printable

if TYPE_CHECKING:
    from airflow_cd.model.environment import Environment
    from airflow_cd.model.release import Release
    from airflow_cd.model.service import Service
    from airflow_cd.targets.base import Target

log = logging.getLogger(__name__)

LONGEST_REASON = 500


def put_question(
    ti_id: Any,
    *,
    subject: str,
    body: str,
    options: Sequence[str],
    params: Mapping[str, Any],
    assigned: Sequence[str] = (),
    about: QuestionSubject | None = None,
    default: str | None = None,
) -> QuestionSubject | None:
    """
    Ask, and return what the question that Airflow shows is about.

    Airflow keeps one question per task of a run, also when the task is cleared. Asked once more, it forgets
    the answer but goes on showing the first question, which is not always the given one.

    :param ti_id: id of the task instance that asks
    :param assigned: names of the users who can answer; empty means everybody who can act on the DAG. Airflow
        compares ids, so that it gets them only where these are the names, and else the question says whose
        answer counts; the answer is checked in any case.
    :param about: carried by the question as data, in a field that the form does not show
    :param default: what Airflow enters as the answer when nobody gave one in time; nobody can answer then
    """
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload
    from airflow.sdk.execution_time.task_runner import SUPERVISOR_COMMS

    is_told = _ids_are_names()
    if assigned and not is_told:
        body += f"\n\nOnly answers of these users count: {', '.join(map(escape, assigned))}."
    # As airflow.sdk.execution_time.hitl.upsert_hitl_detail does, which drops the reply.
    shown = SUPERVISOR_COMMS.send(
        CreateHITLDetailPayload.model_validate(
            {
                "ti_id": ti_id,
                "options": list(options),
                "subject": subject,
                "body": body,
                "params": {**params, **_hidden_field(about)},
                "assigned_users": [{"id": user, "name": user} for user in assigned] if is_told else [],
                "defaults": None if default is None else [default],
            }
        )
    )
    return subject_in(getattr(shown, "params", None) or {})


def _ids_are_names() -> bool:
    from airflow.configuration import conf

    manager = conf.get("core", "auth_manager", fallback="")
    return not manager or manager.endswith(".SimpleAuthManager")


def _hidden_field(about: QuestionSubject | None) -> dict[str, Any]:
    """Return the field that carries the subject: Airflow's forms do not show a constant."""
    if about is None:
        return {}
    value = about.model_dump(mode="json")
    return {ABOUT: Param(value, type="object", const=value).serialize()}


@cache
def reason_form() -> ParamsDict:
    """
    Return the form in which a person gives the reason of an answer.

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
    """
    Return the reason that an answer gives, if any.

    :param event: the answer, as Airflow passes it
    """
    reason = (event.get("params_input") or {}).get("reason")
    return printable(str(reason), LONGEST_REASON) if reason else None


_LONGEST = 8000


def preview_of(service: Service, environment: Environment, target: Target, release: Release) -> str | None:
    """
    Return what deploying the release would change, where the target can tell; else ``None``.

    A target that does not answer, or would refuse, costs no question: the preview is its error message.
    """
    from airflow_cd.releases.adapters import open_store, store_url
    from airflow_cd.targets.base import DeclarativeTarget

    if not isinstance(target, DeclarativeTarget):
        return None
    try:
        found = target.preview(release, open_store(store_url(service)))
    except (CdError, OSError) as error:
        log.warning("Cannot preview what the deployment would change: %s", error)
        return _fenced(str(error))
    if not found:
        return "Nothing but what runs already."
    text = "\n".join(f"# {one.name}\n{one.text.rstrip()}" for one in found)
    log.info("Deploying %s %s to %s would change:\n%s", service.name, release.version, environment.name, text)
    return _fenced(text, "diff")


def _fenced(text: str, language: str = "") -> str:
    """Nothing in the text can end the block: manifests are anybody's words."""
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n... and more, see the log"
    return f"````{language}\n{cut.replace('````', '` ` ` `')}\n````"
