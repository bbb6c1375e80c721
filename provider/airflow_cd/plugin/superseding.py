"""
Ends the approvals of superseded releases, all at once, as skipped.

Airflow calls this listener in the API server when a task's asset event was stored. The event names the runs
(:mod:`airflow_cd.releases.superseded`); only approvals of the DAG the event comes from are ended, and only
those that still wait, so an answer that was given before it counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.listeners.types import AssetEvent
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

# As in airflow_cd.model.superseded: this module is loaded by every process of Airflow, pydantic need not be.
_KEY = "cd_superseded"
# A statement with thousands of parameters is more than some databases take.
_AT_ONCE = 500


@hookimpl
def on_asset_event_emitted(asset_event: AssetEvent) -> None:
    """End what the event names. Whatever goes wrong concerns nobody but those who wait."""
    told = (asset_event.extra or {}).get(_KEY)
    dag_id = asset_event.source_dag_id
    # What a person sent through the REST API has no DAG it comes from.
    if not told or dag_id is None:
        return
    try:
        ended = _end(dag_id, told)
    except Exception:
        log.exception("Superseded releases of %s go on waiting", dag_id)
    else:
        log.info("%d approvals of %s ended as superseded", ended, dag_id)


def _end(dag_id: str, told: object) -> int:
    """
    Return how many ended.

    :raises pydantic.ValidationError: the event is none of ours
    """
    from airflow.utils.session import create_session

    from airflow_cd.model.superseded import Superseded

    superseded = Superseded.model_validate(told)
    ended, run_ids = 0, sorted(superseded.runs)
    for start in range(0, len(run_ids), _AT_ONCE):
        with create_session() as session:
            some = run_ids[start : start + _AT_ONCE]
            waiting = _waiting(session, dag_id, superseded.task_id, some)
            for ti in waiting:
                _skip(session, ti, f"{superseded.runs[ti.run_id]} {superseded.reason}")
            ended += len(waiting)
    return ended


def _waiting(session: Session, dag_id: str, task_id: str, run_ids: list[str]) -> list[TaskInstance]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select
    from sqlalchemy.orm import lazyload

    # Locked in one order: an answer to one of them locks its row first, too.
    chosen = (
        select(TaskInstance)
        .where(
            TaskInstance.dag_id == dag_id,
            TaskInstance.task_id == task_id,
            TaskInstance.run_id.in_(run_ids),
            TaskInstance.state == TaskInstanceState.AWAITING_INPUT,
        )
        .order_by(TaskInstance.id)
        .options(lazyload("*"))
        .with_for_update(of=TaskInstance)
    )
    return list(session.scalars(chosen))


def _skip(session: Session, ti: Any, reason: str) -> None:
    from airflow.models.log import Log
    from airflow.utils.state import TaskInstanceState
    from airflow.utils.timezone import utcnow

    ti.state, ti.end_date = TaskInstanceState.SKIPPED, utcnow()
    ti.set_duration()
    ti.next_method, ti.next_kwargs, ti.trigger_timeout = None, None, None
    ti.note = reason
    session.add(Log(event="superseded", task_instance=ti, owner="airflow-provider-cd", extra=reason))
