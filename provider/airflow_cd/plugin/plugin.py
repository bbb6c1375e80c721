"""The Airflow plugin. Airflow loads this class in every process, so it stays free of web imports."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from airflow_cd.plugin import run_notes, superseding


class CdPlugin(AirflowPlugin):
    """What runs inside Airflow's own processes; installing it changes nothing until a DAG uses it."""

    name = "airflow_cd"
    listeners = [superseding, run_notes]
