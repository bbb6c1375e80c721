"""
The asset events that start runs: only those of this package's triggers decide anything.

A user with access to assets can create events through Airflow's REST API, and a task can emit them as
outlets. Such an event must neither choose the commit that a run builds nor raise an alarm that rolls
production back. Airflow 3.3 marks the origin: an event of a trigger has ``from_trigger`` in its ``extra`` and
no source task, and the API sets ``from_rest_api`` on every event that it creates (``airflow.models.trigger``
and the data model of ``POST /assets/events``).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_cd.model.text import printable

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import Logger

_LONGEST = 200


def trigger_payloads(context: Context, log: Logger) -> Iterator[tuple[datetime, Any]]:
    """
    Yield time and payload of the events of triggers that started the run; log and leave out all others.

    :param context: of a task
    """
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            if refusal := _refusal(event):
                log.warning("An asset event is ignored: %s", refusal)
                continue
            yield event.timestamp, event.extra["payload"]


def _refusal(event: Any) -> str | None:
    """Return why an event is not one of a trigger, or ``None``."""
    extra = event.extra or {}
    if extra.get("from_rest_api"):
        return "it was created through the REST API"
    source = getattr(event, "source_task_id", None) or getattr(event, "source_dag_id", None)
    if source:
        return f"the task {printable(str(source), _LONGEST)} emitted it"
    if extra.get("from_trigger") is not True or "payload" not in extra:
        return "no trigger emitted it"
    return None
