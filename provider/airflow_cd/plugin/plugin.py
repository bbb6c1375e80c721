"""The Airflow plugin. Airflow loads this class in every process, so it stays free of web imports."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class CdPlugin(AirflowPlugin):
    """Names the package among Airflow's plugins; installing it changes nothing until a DAG uses it."""

    name = "airflow_cd"
