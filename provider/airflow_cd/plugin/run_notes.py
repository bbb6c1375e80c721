"""
Writes what a task has to say of its run where people look: into the note of the run.

A task cannot do that itself. It emits an asset event; Airflow calls this listener in the API server when that
was stored. Only the run that the event comes from gets the note.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from airflow.listeners.types import AssetEvent

log = logging.getLogger(__name__)

# As in airflow_cd.releases.history, which this module, loaded by every process of Airflow, does without.
_KEY = "cd_run_note"


@hookimpl
def on_asset_event_emitted(asset_event: AssetEvent) -> None:
    """Write the note, if the event has one. Whatever goes wrong, the run goes on."""
    note = (asset_event.extra or {}).get(_KEY)
    if not isinstance(note, str) or asset_event.source_run_id is None:
        return
    try:
        _write(str(asset_event.source_dag_id), asset_event.source_run_id, note)
    except Exception:
        log.exception("No note for run %s of %s", asset_event.source_run_id, asset_event.source_dag_id)


def _write(dag_id: str, run_id: str, note: str) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        # What a person wrote there is theirs.
        if run is not None and not run.note:
            run.note = note
