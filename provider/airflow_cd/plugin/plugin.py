"""The Airflow plugin. Airflow loads this class in every process, so it stays free of web imports."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_cd.plugin import run_notes, superseding
from airflow_cd.plugin.sqlite_writes import SerializeSqliteWritesMiddleware


class CdPlugin(AirflowPlugin):
    """
    What runs inside Airflow's own processes.

    Installing it changes nothing until a DAG uses it, with one exception: it keeps an API server on SQLite
    from blocking itself (:mod:`airflow_cd.plugin.sqlite_writes`).
    """

    name = "airflow_cd"
    listeners = [superseding, run_notes]
    fastapi_root_middlewares = [
        {
            "name": "Serialize writes on SQLite",
            "middleware": SerializeSqliteWritesMiddleware,
            "args": [],
            "kwargs": {},
        }
    ]
