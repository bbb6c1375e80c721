"""Defaults of all generated DAGs, from Airflow's configuration."""

from __future__ import annotations

from functools import cache
from typing import Any

from airflow.sdk import DAG

_NAMES = ("max_active_tasks", "max_consecutive_failed_dag_runs", "disable_bundle_versioning")


@cache
def dag_defaults() -> dict[str, Any]:
    """
    Return the arguments of a DAG whose defaults stand in Airflow's configuration.

    A DAG looks each of them up there, which takes longer than all else in making it; the answers are the same
    for a thousand DAGs of one process.
    """
    dag = DAG("configured", schedule=None, max_active_runs=1, catchup=False)
    return {name: getattr(dag, name) for name in _NAMES}
